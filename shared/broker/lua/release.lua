#!lua flags=allow-oom
-- Gives a stream up before its end, so that another worker takes it at once. It is not an attempt that failed.
-- ARGV: 1 epoch, 2 holder
-- Answers as append does; OK n where it was given up.

local epoch = tonumber(ARGV[1])
local s = load_for_writer()
local refusal = refuse(s, epoch, ARGV[2])
if refusal then return refusal end
leave_lane(load_into(s, 'lane'))
redis.call('HSET', STATE, 'lease_until', now, 'handed_over', 1)
redis.call('HDEL', STATE, 'holder')
note('handover:')
redis.call('ZADD', INDEX, now, ID)
return answer('OK', log_length(s, epoch), s)
