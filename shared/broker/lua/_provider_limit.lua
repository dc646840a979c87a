-- Per-provider concurrency limits over all workers. The state's field `lane` names the provider if it has a limit.
-- hr:lane:<provider>:running (zset): id → end of its lease, ms. hr:lane:<provider>:parked (zset): id → turn.

local function provider_key(provider, kind) return 'hr:lane:' .. provider .. ':' .. kind end

-- Parks the stream and returns true if the provider is at its limit. unpark.lua releases it when a slot frees.
local function park(provider, limit, turn)
  local running, parked = provider_key(provider, 'running'), provider_key(provider, 'parked')
  redis.call('ZREMRANGEBYSCORE', running, '-inf', now)
  if redis.call('ZCARD', running) < limit or redis.call('ZSCORE', running, ID) then return false end
  if redis.call('ZADD', parked, turn, ID) == 1 then note('parked:' .. provider) end
  redis.call('PEXPIREAT', parked, redis.call('PEXPIRETIME', STATE))
  -- Workers unpark it; the sweep looks again only in case one of them died while doing so.
  redis.call('ZADD', INDEX, now + 30000, ID)
  return true
end

local function hold_provider_slot(provider, until_ms)
  redis.call('ZADD', provider_key(provider, 'running'), until_ms, ID)
  redis.call('PEXPIREAT', provider_key(provider, 'running'), until_ms + 86400000)
end

local function free_provider_slot(s)
  if not s.lane then return end
  redis.call('ZREM', provider_key(s.lane, 'running'), ID)
  redis.call('ZREM', provider_key(s.lane, 'parked'), ID)
end
