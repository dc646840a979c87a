#!lua
-- Takes a stream that no worker holds, under an epoch that was never used and never will be again (rule E1).
-- Writes no event: the older epoch stays readable until the first append of this one.
-- KEYS: 1-10 stream
-- ARGV: 1 holder, 2 lease_ms
-- Status: queued, running → running
-- Replies {'MISSING'}, {'CLOSED'}, {'HELD'} (by a worker; or after an outage, until those that held streams had time to
-- renew their leases), or {'CLAIMED', epoch, attempt, events readable, stop signal, {field, value, …}}.

local holder, lease_ms = unpack(ARGV, 1, 2)
local s = load('status', 'holder', 'epoch', 'log_epoch', 'chunks', 'attempt', 'lease_until', 'cancel', 'on_disconnect', 'grace_ms',
  'live_until', 'polled_until', 'created', 'handed_over')
if not s.status then return {'MISSING'} end
if not active(s) then return {'CLOSED'} end
if held(s) then
  if s.holder ~= holder then return {'HELD'} end
  -- A repeated call, because the first reply was lost.
  return {'CLAIMED', tonumber(s.epoch), tonumber(s.attempt), log_length(s, tonumber(s.log_epoch)), stop_signal(s),
    redis.call('HGETALL', STATE)}
end
if s.status == 'running' and not s.handed_over and is_recovering(tonumber(lease_ms), true) then return {'HELD'} end

need_rights('HDEL HGET HGETALL HSET HSETNX XLEN XREVRANGE ZADD', {})
local top_epoch = top_of_tail()
local epoch = math.max(tonumber(s.epoch) + 1, top_epoch + 1, now - s.created)
local attempt = s.handed_over and tonumber(s.attempt) or s.attempt + 1
redis.call('HDEL', STATE, 'handed_over')
redis.call('HSET', STATE, 'status', 'running', 'epoch', epoch, 'holder', holder, 'attempt', attempt,
  'lease_until', now + lease_ms)
redis.call('HSETNX', STATE, 'started', now)
note('claim:' .. attempt .. ':' .. string.match(holder, '^[^.:]*'))
redis.call('ZADD', INDEX, now + lease_ms, ID)
return {'CLAIMED', epoch, attempt, log_length(s, tonumber(s.log_epoch)), stop_signal(s), redis.call('HGETALL', STATE)}
