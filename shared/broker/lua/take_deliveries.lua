#!lua
-- Takes webhooks that are due. Another process takes them in a while, if the caller has not put or removed them.
-- KEYS: 1 deliveries (zset: id → when it is due, ms)
-- ARGV: 1 most_ids, 2 lease_ms (until they are due again)
-- Replies {id, …}, the longest due first.

local most_ids, lease_ms = unpack(ARGV, 1, 2)
local DELIVERIES = KEYS[1]
local due = redis.call('ZRANGEBYSCORE', DELIVERIES, '-inf', now, 'LIMIT', 0, most_ids)
if #due == 0 then return due end
need_rights('PEXPIRE ZADD', {DELIVERIES})
for _, id in ipairs(due) do redis.call('ZADD', DELIVERIES, now + lease_ms, id) end
redis.call('PEXPIRE', DELIVERIES, 172800000)
return due
