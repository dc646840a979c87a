#!lua flags=allow-oom
-- Deletes a stream's content at once. The tombstone stays, so that no worker heals the stream and its owner gets 410.
-- The idempotency entry stays too, so that a repeated POST does not generate again.
-- KEYS: 1-10 stream, 11 queue, 12 principal_streams
-- ARGV: 1 tombstone_ms
-- Status: queued, running, completed, cancelled, failed → none
-- Replies {'MISSING'}, or {'DELETED', '<id> <digest>', …} with removed streams of which the caller deletes what stays.

local tombstone_ms = ARGV[1]
local QUEUE, PRINCIPAL_STREAMS = unpack(KEYS, 11, 12)
local s = load('status', 'holder', 'principal', 'account', 'sources', 'idempotency')
if not s.status then return {'MISSING'} end
local a = account_keys(s.account)
need_rights('DEL HDEL HEXISTS HGET HMGET HSET HINCRBY PEXPIRE SET UNLINK ZADD ZCARD ZRANGE ZREM ZREMRANGEBYSCORE',
  {QUEUE, PRINCIPAL_STREAMS, 'hr:{desk}:any', 'arq:job:{desk}any'})
local forgotten = leave_tombstone(a, 'deleted', s, tombstone_ms)
if active(s) then settle(a) end
leave_lanes()
give_back(a, {ID})
forget_sources(a, s.sources or nil)
redis.call('UNLINK', REQUEST)
redis.call('DEL', STATE, LOG, TAIL, READERS, OF, 'arq:job:{desk}' .. ID)
stop_waiting(s.account)
for _, key in ipairs({INDEX, PRINCIPAL_STREAMS, 'hr:{desk}:ended', 'hr:{desk}:failed', ANSWERS}) do
  redis.call('ZREM', key, ID)
end
redis.call('ZREM', QUEUE, '{desk}' .. ID)
notify_holder(s, 'cancel')
return {'DELETED', unpack(forgotten)}
