#!lua flags=allow-oom
-- One bucket's turn of the sweep: its pulse, and the streams that should be looked at.
-- KEYS: 1 index (zset: id → next look, ms), 2 pulse (hash: at, run_id, trouble)
-- ARGV: 1 lease ms, after which to look again, 2 most ids, 3 this Redis' run id
-- Answers {now in ms, id, …}.
-- A pulse that stopped for two seconds, or came from another Redis, means trouble: workers that hold streams could not
-- renew their leases. Whoever claims or reads asks for that (in_trouble).

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local at, before = unpack(redis.call('HMGET', KEYS[2], 'at', 'run_id'))
if not at or now - at > 2000 or before ~= ARGV[3] then redis.call('HSET', KEYS[2], 'trouble', now) end
redis.call('HSET', KEYS[2], 'at', now, 'run_id', ARGV[3])
redis.call('PEXPIRE', KEYS[2], 86400000)

local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
for _, id in ipairs(due) do redis.call('ZADD', KEYS[1], now + ARGV[1], id) end
return {now, unpack(due)}
