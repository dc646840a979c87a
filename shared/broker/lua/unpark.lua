#!lua
-- Takes streams out of a lane's parking place, as many as the lane has room for, the lowest turn first.
-- KEYS: 1 running (zset: id → end of its lease, ms), 2 parked (zset: id → turn)
-- ARGV: 1 how many may run at once
-- Answers {id, turn, …}. Who asked queues them; the sweep does it for one that died in between.

local clock = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', clock[1] * 1000 + math.floor(clock[2] / 1000))
local room = ARGV[1] - redis.call('ZCARD', KEYS[1])
if room <= 0 then return {} end
return redis.call('ZPOPMIN', KEYS[2], room)
