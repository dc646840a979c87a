#!lua flags=allow-oom
-- Deletes a stream's content at once. The tombstone stays, so that no worker heals the stream and its owner gets 410.
-- The idempotency entry stays too, so that a repeated POST does not generate again.
-- KEYS: 1-8 stream, 9 queue, 10 job, 11 waiting, 12 principal_streams
-- ARGV: 1 tombstone_ms
-- Status: queued, running, completed, cancelled, failed → none
-- Replies {'MISSING'} or {'DELETED'}.

local tombstone_ms = ARGV[1]
local QUEUE, JOB, WAITING, PRINCIPAL_STREAMS = unpack(KEYS, 9, 12)
local s = load('status', 'holder', 'principal', 'account', 'sources', 'idempotency')
if not s.status then return {'MISSING'} end
need_rights('DEL HDEL HEXISTS HMGET HSET HINCRBY PEXPIRE SET UNLINK ZADD ZCARD ZRANGE ZREM ZREMRANGEBYSCORE',
  {QUEUE, JOB, WAITING, PRINCIPAL_STREAMS, 'hr:ended', 'hr:account:any', 'hr:lane:any'})
leave_tombstone('deleted', s, tombstone_ms)
if active(s) then settle() end
leave_lanes()
give_back(s.account, {ID})
forget_sources(s.account, s.sources or nil)
redis.call('UNLINK', request_key())
redis.call('DEL', STATE, LOG, TAIL, READERS, JOB)
local account_waiting = 'hr:account:' .. s.account .. ':waiting'
for _, key in ipairs({INDEX, QUEUE, WAITING, account_waiting, PRINCIPAL_STREAMS, 'hr:ended', 'hr:failed', 'hr:answers'}) do
  redis.call('ZREM', key, ID)
end
notify_holder(s, 'cancel')
return {'DELETED'}
