#!lua
-- Takes streams that are due from a queue. Another process takes them in a while, if the caller has not put or removed
-- them.
-- KEYS: 1 queue (zset: id → when it is due, ms)
-- ARGV: 1 most_ids, 2 lease_ms (until they are due again)
-- Replies {id, …}, the longest due first.

local most_ids, lease_ms = unpack(ARGV, 1, 2)
local QUEUE = KEYS[1]
local due = redis.call('ZRANGEBYSCORE', QUEUE, '-inf', now, 'LIMIT', 0, most_ids)
if #due == 0 then return due end
need_rights('PEXPIRE ZADD', {QUEUE})
for _, id in ipairs(due) do redis.call('ZADD', QUEUE, now + lease_ms, id) end
redis.call('PEXPIRE', QUEUE, 172800000)
return due
