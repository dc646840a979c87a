#!lua flags=allow-oom
-- Drops the answer of a stream that has ended, to free storage. The tombstone stays, and so does the idempotency entry.
-- KEYS: 1-10 stream
-- ARGV: 1 tombstone_ms, 2 retention_min_ms (since the end, in which the answer is kept)
-- Status: completed, cancelled, failed → none
-- Replies {bytes given back, '<id> <digest>', …} with removed streams of which the caller deletes what stays; {0} if the
-- stream is kept: it waits or runs, ended too recently, has a live reader, or a stream that runs was made from it.

local tombstone_ms, retention_min_ms = unpack(ARGV, 1, 2)
local s = load('status', 'principal', 'account', 'ended', 'idempotency')
if not s.status then
  redis.call('ZREM', ANSWERS, ID) -- its retention has ended
  return {0}
end
if active(s) or tonumber(s.ended) + retention_min_ms > now then return {0} end
local a = account_keys(s.account)
if redis.call('ZCOUNT', READERS, now, '+inf') > 0 or is_source(a) then return {0} end
need_rights('DEL HDEL HINCRBY HMGET PEXPIRE SET UNLINK ZADD ZCARD ZRANGE ZREM ZREMRANGEBYSCORE',
  {'hr:owned:' .. s.account, 'hr:{desk}:any'})
local forgotten = leave_tombstone(a, 'dropped', s, tombstone_ms)
local bytes = give_back(a, {ID})
redis.call('UNLINK', REQUEST)
redis.call('DEL', STATE, LOG, TAIL, READERS)
for _, key in ipairs({'hr:owned:' .. s.account, 'hr:{desk}:ended', 'hr:{desk}:failed', ANSWERS}) do
  redis.call('ZREM', key, ID)
end
return {math.max(1, bytes), unpack(forgotten)}
