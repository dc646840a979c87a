#!lua
-- Puts a job into arq's queue in one step, and lets neither key live for ever.
-- KEYS: 1 queue (zset: job id → score, the lowest is taken first), 2 job (string, arq's bytes)
-- ARGV: 1 job id, 2 job, 3 score, 4 life of both keys in ms
-- Answers 1, or 0 where the job waits already (it keeps its place).

redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[4])
local added = redis.call('ZADD', KEYS[1], 'NX', ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return added
