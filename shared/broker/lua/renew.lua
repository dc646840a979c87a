#!lua flags=allow-oom
-- Prolongs a worker's lease, and the life of the stream's keys with it.
-- ARGV: 1 epoch, 2 holder, 3 lease ms, 4 retention ms, 5 tombstone ms
-- Answers as append does; OK n where the lease was prolonged.

local epoch = tonumber(ARGV[1])
local s = load_for_writer()
local refusal = refuse(s, epoch, ARGV[2])
if refusal then return refusal end
redis.call('HSET', STATE, 'lease_until', now + ARGV[3])
redis.call('ZADD', INDEX, now + ARGV[3], ID)
load_into(s, 'expires', 'lane')
if s.lane then stay_in_lane(s.lane, now + ARGV[3]) end
-- Six commands a stream: not at every renewal, only when a minute has gone by.
if tonumber(s.expires) < now + ARGV[4] - math.min(60000, ARGV[4] / 2) then keep_until(now + ARGV[4], tonumber(ARGV[5])) end
return answer('OK', log_length(s, epoch), s)
