#!lua
-- Takes a stream that no worker holds, under an epoch that was never used and never will be again (rule E1).
-- Writes no event: the older epoch stays readable until the first append of this one.
-- KEYS: 1-10 stream, 11 taken (counter; shows gateways how fast the queue drains)
-- ARGV: 1 holder, 2 lease_ms, 3 provider_limits… (provider, streams, requests, tokens, …; see _provider_limit.lua)
-- Status: queued, running → running
-- Replies {'MISSING'}, {'CLOSED'}, {'HELD'} (by a worker; or after an outage, until those that held streams had time to
-- renew their leases), {'PARKED'} (all providers of its targets are at a limit), or {'CLAIMED', epoch, attempt, events
-- readable, stop signal, {field, value, …}}.

local holder, lease_ms = unpack(ARGV, 1, 2)
local TAKEN = KEYS[11]
local s = load('status', 'holder', 'epoch', 'log_epoch', 'chunks', 'attempt', 'lease_until', 'cancel', 'on_disconnect', 'grace_ms',
  'live_until', 'polled_until', 'created', 'handed_over', 'provider', 'lanes',
  'account', 'stored_limit', 'expected_tokens')
if not s.status then
  redis.call('ZREM', INDEX, ID)
  return {'MISSING'}
end
if not active(s) then return {'CLOSED'} end
if held(s) then
  if s.holder ~= holder then return {'HELD'} end
  -- A repeated call, because the first reply was lost.
  return {'CLAIMED', tonumber(s.epoch), tonumber(s.attempt), log_length(s, tonumber(s.log_epoch)), stop_signal(s),
    redis.call('HGETALL', STATE)}
end
if s.status == 'running' and not s.handed_over and is_recovering(tonumber(lease_ms), true) then return {'HELD'} end

local a = account_keys(s.account)
local turn = redis.call('HGET', OF, 'turn') or 0
need_rights('HDEL HEXISTS HGET HGETALL HINCRBY HSET HSETNX INCR PEXPIRE PEXPIREAT PEXPIRETIME XLEN XREVRANGE ZADD ' ..
  'ZCOUNT ZRANGE ZREM ZREMRANGEBYSCORE ZSCORE', {TAKEN, 'hr:{desk}:any'})
if not s.cancel and is_far_above(a, s.account, s.stored_limit) then
  s.cancel = 'stored_bytes'
  redis.call('HSET', STATE, 'cancel', s.cancel)
end
local limits = {}
for i = 3, #ARGV, 4 do limits[ARGV[i]] = {tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])} end
local chosen, full, tokens = nil, {}, tonumber(s.expected_tokens or 0)
for provider in string.gmatch(s.lanes or s.provider or '', '%S+') do
  local limit = not s.cancel and limits[provider]
  if not limit or not (limit_reached(provider, limit, tokens) or is_behind(provider, limit, turn)) then
    chosen = provider
    break
  end
  full[#full + 1] = provider
end
if not chosen and #full > 0 then
  if redis.call('HEXISTS', OF, 'parked') == 0 then note('parked:' .. full[1]) end
  park(full, turn, tokens)
  -- Workers unpark it; the sweep looks again only in case one of them died while doing so.
  redis.call('ZADD', INDEX, now + 30000, ID)
  return {'PARKED'}
end

leave_lanes()
if s.status == 'queued' then
  stop_waiting(s.account)
  redis.call('INCR', TAKEN)
  redis.call('PEXPIRE', TAKEN, 86400000)
end
if chosen and limits[chosen] and not s.cancel then
  enter_lanes(chosen, chosen, limits[chosen], tokens, now + lease_ms)
  redis.call('HSET', OF, 'lane_new', 1)
end
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
