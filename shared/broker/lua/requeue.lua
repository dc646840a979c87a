#!lua
-- Puts the id of a stream that lost its place back into the queue, before all others: it has waited already.
-- KEYS: 1 of (see _desk.lua), 2 queue (zset: id of the job → turn, the lowest is taken first)
-- ARGV: 1 stream_id, 2 life_ms (of the queue)
-- Replies {'QUEUED'}, {'KNOWN'} if it is queued already (it keeps its position then), {'REFUSED'} if `admit` has refused
-- it, or {'UNKNOWN'} if `admit` was never called, or the desk has lost it.

local QUEUE = KEYS[2]
local stream_id, life_ms = unpack(ARGV, 1, 2)
if redis.call('EXISTS', OF) == 0 then return {'UNKNOWN'} end
if redis.call('HEXISTS', OF, 'refused') == 1 then return {'REFUSED'} end
local head = redis.call('ZRANGE', QUEUE, 0, 0, 'WITHSCORES')[2]
local added = redis.call('ZADD', QUEUE, 'NX', (head or 0) - 1, JOB_ID)
redis.call('PEXPIRE', QUEUE, life_ms)
return {added == 1 and 'QUEUED' or 'KNOWN'}
