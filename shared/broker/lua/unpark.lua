#!lua
-- Takes as many parked streams as their provider has room for, the lowest turn first. Tokens are not counted here: a
-- claim parks a stream again that needs more than there are.
-- KEYS: 1 running (zset: id → end of its lease, ms), 2 parked (zset: id → turn), 3 used (hash, see _rate_limits.lua)
-- ARGV: 1 concurrent_streams, 2 requests_per_minute, 3 tokens_per_minute (limits; 0: unlimited)
-- Replies {id, turn, …}. The caller queues them; if it dies in between, the sweep does.

local RUNNING, PARKED, USED = unpack(KEYS, 1, 3)
local concurrent_streams, requests_per_minute, tokens_per_minute = unpack(ARGV, 1, 3)
if redis.call('ZCARD', PARKED) == 0 then return {} end
local clock = redis.call('TIME')
local used, flat, free = {r = 0, t = 0}, redis.call('HGETALL', USED), 100
for i = 1, #flat, 2 do
  local kind, at = string.match(flat[i], '^([rt])(%d+)$')
  if kind and tonumber(at) > clock[1] - 60 then used[kind] = used[kind] + flat[i + 1] end
end
if concurrent_streams ~= '0' then
  local running = redis.call('ZCOUNT', RUNNING, clock[1] * 1000 + math.floor(clock[2] / 1000), '+inf')
  free = math.min(free, concurrent_streams - running)
end
if requests_per_minute ~= '0' then free = math.min(free, requests_per_minute - used.r) end
-- The first that does not fit keeps all behind it waiting.
if tokens_per_minute ~= '0' then free = math.min(free, used.t < tonumber(tokens_per_minute) and 1 or 0) end
if free <= 0 then return {} end
return redis.call('ZPOPMIN', PARKED, free)
