#!lua flags=allow-oom
-- One bucket's turn of the sweep: updates its pulse and returns the streams that are due.
-- KEYS: 1 index (zset: id → next look, ms), 2 pulse (hash: at, run_id, trouble)
-- ARGV: 1 lease_ms (after which to look again), 2 most_ids, 3 run_id (of this Redis)
-- Replies {now in ms, id, …}.
-- A pulse that stopped for two seconds, or came from another Redis, means an outage: workers could not renew their
-- leases. The field `trouble` has its time; claim and read check it (is_recovering).

local INDEX, PULSE = unpack(KEYS, 1, 2)
local lease_ms, most_ids, run_id = unpack(ARGV, 1, 3)
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local at, before = unpack(redis.call('HMGET', PULSE, 'at', 'run_id'))
if not at or now - at > 2000 or before ~= run_id then redis.call('HSET', PULSE, 'trouble', now) end
redis.call('HSET', PULSE, 'at', now, 'run_id', run_id)
redis.call('PEXPIRE', PULSE, 86400000)

local due = redis.call('ZRANGEBYSCORE', INDEX, '-inf', now, 'LIMIT', 0, most_ids)
for _, id in ipairs(due) do redis.call('ZADD', INDEX, now + lease_ms, id) end
return {now, unpack(due)}
