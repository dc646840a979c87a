#!lua
-- Takes as many parked streams as their provider has free slots, the lowest turn first.
-- KEYS: 1 running (zset: id → end of its lease, ms), 2 parked (zset: id → turn)
-- ARGV: 1 limit (streams that may run at once)
-- Replies {id, turn, …}. The caller queues them; if it dies in between, the sweep does.

local RUNNING, PARKED = unpack(KEYS, 1, 2)
local limit = ARGV[1]
local clock = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', RUNNING, '-inf', clock[1] * 1000 + math.floor(clock[2] / 1000))
local free = limit - redis.call('ZCARD', RUNNING)
if free <= 0 then return {} end
return redis.call('ZPOPMIN', PARKED, free)
