#!lua flags=allow-oom
-- Hands a stream over before its end, so that another worker takes it at once. It does not count as a failed attempt.
-- KEYS: 1-10 stream
-- ARGV: 1 epoch, 2 holder
-- Status: running → running
-- Replies as append does; OK n if it was handed over.

local epoch, holder = unpack(ARGV, 1, 2)
epoch = tonumber(epoch)
local s = load_for_writer()
local refusal = refuse(s, epoch, holder)
if refusal then return refusal end
need_rights('HDEL HGET HSET XLEN XREVRANGE ZADD', {})
redis.call('HSET', STATE, 'lease_until', now, 'handed_over', 1)
redis.call('HDEL', STATE, 'holder')
note('handover:')
redis.call('ZADD', INDEX, now, ID)
return reply('OK', log_length(s, epoch), s)
