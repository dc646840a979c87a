#!lua
-- Puts the id of a stream that lost its place back into the queue, before all others of its class: it has waited already.
-- KEYS: 1 of (see _desk.lua), 2 queue (zset: id of the job → turn, the lowest is taken first), 3 job (string, arq's bytes)
-- ARGV: 1 stream_id, 2 life_ms (of the queue), 3 job (arq's bytes)
-- Replies {'QUEUED'}, {'KNOWN'} if it is queued already (it keeps its position then) or `admit` is about to decide about
-- it, {'REFUSED'} if `admit` has refused it, or {'UNKNOWN'} if `admit` was never called, or the desk has lost it.

local QUEUE, JOB = unpack(KEYS, 2, 3)
local stream_id, life_ms, job = unpack(ARGV, 1, 3)
local account, refused, undecided, turn = unpack(redis.call('HMGET', OF, 'account', 'refused', 'undecided', 'turn'))
if refused then return {'REFUSED'} end
if not account then return {undecided and 'KNOWN' or 'UNKNOWN'} end
need_rights('PEXPIRE SET ZADD', {QUEUE, JOB})
local added = redis.call('ZADD', QUEUE, 'NX', front(QUEUE, turn, 1), JOB_ID)
redis.call('PEXPIRE', QUEUE, life_ms)
redis.call('SET', JOB, job, 'PX', math.max(life_ms, redis.call('PTTL', OF)))
return {added == 1 and 'QUEUED' or 'KNOWN'}
