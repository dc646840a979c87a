-- A provider may have so many streams at once, over all workers. A lane is one that has such a limit.
-- hr:lane:<provider>:running (zset): id → end of its lease, ms. hr:lane:<provider>:parked (zset): id → turn.

local function lane_key(lane, which) return 'hr:lane:' .. lane .. ':' .. which end

-- Whether there is no room for this stream; it is then parked until a worker sees that there is (unpark.lua).
local function park(lane, most, turn)
  local running, parked = lane_key(lane, 'running'), lane_key(lane, 'parked')
  redis.call('ZREMRANGEBYSCORE', running, '-inf', now)
  if redis.call('ZCARD', running) < most or redis.call('ZSCORE', running, ID) then return false end
  if redis.call('ZADD', parked, turn, ID) == 1 then note('parked:' .. lane) end
  redis.call('PEXPIREAT', parked, redis.call('PEXPIRETIME', STATE))
  -- Workers take it out of there; the sweep only looks whether one died over it.
  redis.call('ZADD', INDEX, now + 30000, ID)
  return true
end

local function stay_in_lane(lane, until_ms)
  redis.call('ZADD', lane_key(lane, 'running'), until_ms, ID)
  redis.call('PEXPIREAT', lane_key(lane, 'running'), until_ms + 86400000)
end

local function leave_lane(s)
  if not s.lane then return end
  redis.call('ZREM', lane_key(s.lane, 'running'), ID)
  redis.call('ZREM', lane_key(s.lane, 'parked'), ID)
end
