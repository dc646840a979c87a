#!lua
-- Takes a stream's place for a worker that claims it next, and a slot of the first of its targets with room.
-- KEYS: 1 of (see _desk.lua), 2 waiting, 3 waiting_accounts (2-3: see _queue.lua),
--       4 taken (counter; shows gateways how fast the queue drains),
--       5 lanes… (running, parked, tokens, used of each provider with a limit; see _provider_limit.lua)
-- ARGV: 1 stream_id, 2 holder, 3 lease_ms, 4 limits… (lane, streams, requests, tokens, …, in the order of the keys; 0:
--       unlimited)
-- Replies {'TAKEN', lanes}, {'PARKED', 1 if it was not parked before, provider} (all providers of its targets are at a
-- limit), {'HELD'} (by another worker), {'UNKNOWN'} (the desk does not have the stream; it may be claimed), or {'LANES',
-- lanes} (see lanes_lacking).

local stream_id, holder, lease_ms = unpack(ARGV, 1, 3)
local WAITING, WAITING_ACCOUNTS, TAKEN = unpack(KEYS, 2, 4)
local providers, limits = {}, {}
for i = 4, #ARGV, 4 do
  providers[#providers + 1] = ARGV[i]
  limits[ARGV[i]] = {tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])}
end
name_lanes(5, providers)
local account, targets, turn, tokens, current, until_ms, lane = unpack(redis.call('HMGET', OF, 'account', 'targets', 'turn',
  'tokens', 'holder', 'until', 'lane'))
if not account then return {'UNKNOWN'} end
if current and tonumber(until_ms) > now then
  if current == holder then return {'TAKEN', lane or ''} end
  return {'HELD'}
end
local lacking = lanes_lacking()
if lacking then return {'LANES', lacking} end
need_rights('HDEL HEXISTS HGET HGETALL HINCRBY HMGET HSET INCR PEXPIRE PEXPIREAT PEXPIRETIME ZADD ZCOUNT ZRANGE ZREM ' ..
  'ZREMRANGEBYSCORE ZSCORE', KEYS)

turn, tokens = turn or 0, tonumber(tokens or 0)
local chosen, full = nil, {}
for provider in string.gmatch(targets or '', '%S+') do
  local limit = limits[provider]
  if not limit or not (limit_reached(provider, limit, tokens) or is_behind(provider, limit, turn)) then
    chosen = provider
    break
  end
  full[#full + 1] = provider
end
if not chosen and #full > 0 then
  local is_new = redis.call('HEXISTS', OF, 'parked') == 0
  park(full, turn, tokens)
  return {'PARKED', is_new and 1 or 0, full[1]}
end

leave_lanes()
redis.call('ZREM', WAITING_ACCOUNTS, account .. ' ' .. ID)
if redis.call('ZREM', WAITING, ID) == 1 then
  redis.call('INCR', TAKEN)
  redis.call('PEXPIRE', TAKEN, 86400000)
end
redis.call('HSET', OF, 'holder', holder, 'until', now + lease_ms)
if not (chosen and limits[chosen]) then return {'TAKEN', ''} end
enter_lanes(chosen, chosen, limits[chosen], tokens, now + lease_ms)
redis.call('HSET', OF, 'lane_new', 1)
return {'TAKEN', chosen}
