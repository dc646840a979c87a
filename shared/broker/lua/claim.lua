#!lua
-- Takes a stream that nobody holds, under an epoch that never was and never will be again (design §4 rule 1).
-- Writes no event: the older epoch stays readable until the first append of this one.
-- KEYS: 9 waiting (zset, see _queue.lua), 10 taken (counter, from which gateways know how fast the queue drains)
-- ARGV: 1 holder, 2 lease ms, 3.. provider, how many of its streams may run at once, … (_provider_limit.lua)
-- Answers {'MISSING'}, {'CLOSED'}, {'HELD'}: by a worker, or by nobody until those who held streams when Redis had its
-- trouble were heard; {'PARKED'}: its provider has all it may have; or {'CLAIMED', epoch, attempt, events readable,
-- stop signal, {field, value, …}}.

local s = load('status', 'holder', 'epoch', 'log_epoch', 'attempt', 'lease_until', 'cancel', 'on_disconnect', 'grace_ms',
  'live_until', 'polled_until', 'created', 'handed_over', 'provider', 'turn')
if not s.status then
  redis.call('ZREM', INDEX, ID)
  return {'MISSING'}
end
if not active(s) then return {'CLOSED'} end
if held(s) then
  if s.holder ~= ARGV[1] then return {'HELD'} end
  -- Said twice, since the answer was lost.
  return {'CLAIMED', tonumber(s.epoch), tonumber(s.attempt), log_length(s, tonumber(s.log_epoch)), signal(s),
    redis.call('HGETALL', STATE)}
end
if s.status == 'running' and not s.handed_over and in_trouble(tonumber(ARGV[2]), true) then return {'HELD'} end

local lane
for i = 3, #ARGV, 2 do
  if ARGV[i] == s.provider and not s.cancel then
    lane = s.provider
    redis.call('HSET', STATE, 'lane', lane)
    if park(lane, tonumber(ARGV[i + 1]), s.turn or 0) then return {'PARKED'} end
  end
end

if s.status == 'queued' then
  redis.call('ZREM', KEYS[9], ID)
  redis.call('INCR', KEYS[10])
  redis.call('PEXPIRE', KEYS[10], 86400000)
end
if lane then stay_in_lane(lane, now + ARGV[2]) end
local top_epoch = top_of_tail()
local epoch = math.max(tonumber(s.epoch) + 1, top_epoch + 1, now - s.created)
local attempt = s.handed_over and tonumber(s.attempt) or s.attempt + 1
redis.call('HDEL', STATE, 'handed_over')
redis.call('HSET', STATE, 'status', 'running', 'epoch', epoch, 'holder', ARGV[1], 'attempt', attempt,
  'lease_until', now + ARGV[2])
redis.call('HSETNX', STATE, 'started', now)
note('claim:' .. attempt .. ':' .. string.match(ARGV[1], '^[^.]*'))
redis.call('ZADD', INDEX, now + ARGV[2], ID)
return {'CLAIMED', epoch, attempt, log_length(s, tonumber(s.log_epoch)), signal(s), redis.call('HGETALL', STATE)}
