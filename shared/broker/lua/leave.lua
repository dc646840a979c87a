#!lua flags=allow-oom
-- Frees the place and the slots of a stream that its worker does not claim, or hands over.
-- KEYS: 1 of (see _desk.lua), 2 queue (zset: id of the job → turn, the lowest is taken first),
--       3 lanes… (running, parked, tokens, used of each lane of the stream; see _provider_limit.lua)
-- ARGV: 1 stream_id, 2 holder, 3 requeue (1: put it back into the queue, first of its class), 4 life_ms (of the queue),
--       5 lanes… (in the order of the keys)
-- Replies {'LEFT'}, {'HELD'} if another holds the place, or {'LANES', lanes} (see lanes_lacking).

local stream_id, holder, requeue, life_ms = unpack(ARGV, 1, 4)
local QUEUE = KEYS[2]
if redis.call('HGET', OF, 'holder') ~= holder then return {'HELD'} end
need_rights('HDEL HEXISTS HGET HINCRBY HSET PEXPIRE ZADD ZRANGE ZRANGEBYSCORE ZREM', KEYS)
name_lanes(3, {unpack(ARGV, 5)})
local lacking = lanes_lacking()
if lacking then return {'LANES', lacking} end
leave_lanes()
redis.call('HDEL', OF, 'holder', 'until')
redis.call('HSET', OF, 'left', holder) -- so that `hold`, if it comes late, does not take the place again
if requeue == '1' then
  redis.call('ZADD', QUEUE, 'NX', front(QUEUE, redis.call('HGET', OF, 'turn'), 1), JOB_ID)
  redis.call('PEXPIRE', QUEUE, life_ms)
end
return {'LEFT'}
