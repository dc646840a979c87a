#!lua
-- Puts the job of a stream that lost it back into arq's queue, in one step, before all others: it has waited already.
-- KEYS: 1 queue (zset: id → turn, the lowest is taken first), 2 job (string, arq's bytes)
-- ARGV: 1 stream_id, 2 job, 3 life_ms (of both keys)
-- Replies 1, or 0 if the stream is queued already; it keeps its position then.

local QUEUE, JOB = unpack(KEYS, 1, 2)
local stream_id, job, life_ms = unpack(ARGV, 1, 3)
local head = redis.call('ZRANGE', QUEUE, 0, 0, 'WITHSCORES')[2]
redis.call('SET', JOB, job, 'PX', life_ms)
local added = redis.call('ZADD', QUEUE, 'NX', (head or 0) - 1, stream_id)
redis.call('PEXPIRE', QUEUE, life_ms)
return added
