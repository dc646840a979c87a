#!lua
-- Puts the job of a stream that lost it back into arq's queue, in one step, before all others: it has waited already.
-- KEYS: 1 queue (zset: id → turn, the lowest is taken first), 2 job (string, arq's bytes)
-- ARGV: 1 job id, 2 job, 3 life of both keys in ms
-- Answers 1, or 0 where the job waits already (it keeps its place).

local head = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
local added = redis.call('ZADD', KEYS[1], 'NX', (head or 0) - 1, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return added
