-- Counters of an account's rate limits, for the scripts in which a stream begins or ends. keys.py describes the keys; `a`
-- has those of the account.
-- `used` is {requests this minute, ms until they are 0, tokens this minute, ms until they are 0, tokens today, streams}.

local second, today = math.floor(now / 1000), 'd' .. math.floor(now / 86400000)

local function add(used_key, field, n)
  redis.call('HINCRBY', used_key, field, n)
  redis.call('PEXPIRE', used_key, 2 * 86400000)
end

-- Returns the counts that still matter and deletes the others.
local function recent_counts(used_key)
  local counts, stale, flat = {}, {}, redis.call('HGETALL', used_key)
  for i = 1, #flat, 2 do
    local kind, at = string.match(flat[i], '^(%a)(%d+)$')
    local is_stale = kind ~= 'd' and tonumber(at) <= second - 60 or kind == 'd' and flat[i] ~= today
    if is_stale then stale[#stale + 1] = flat[i] else counts[flat[i]] = tonumber(flat[i + 1]) end
  end
  if #stale > 0 then redis.call('HDEL', used_key, unpack(stale)) end
  return counts
end

-- Returns the use of this minute, ms until it is 0, and ms until `more` fit under `limit`.
local function in_minute(counts, kind, more, limit)
  local used, reset, wait = 0, 0, 0
  for at = second - 59, second do
    local n = counts[kind .. at] or 0
    used = used + n
    if n > 0 then reset = (at + 60) * 1000 - now end
  end
  local over = limit > 0 and used + more - limit or 0
  for at = second - 59, second do
    if over <= 0 then break end
    over = over - (counts[kind .. at] or 0)
    wait = (at + 60) * 1000 - now
  end
  return used, reset, wait
end

-- Returns `used`, and the limit that one more stream of `tokens` would exceed for longest, with ms until it would not.
-- `limits`: requests a minute, tokens a minute, tokens a day, streams; 0 means unlimited.
local function check_limits(a, tokens, limits)
  local used_key, streams_key = a.used, a.streams
  redis.call('ZREMRANGEBYSCORE', streams_key, '-inf', now)
  local counts, streams = recent_counts(used_key), redis.call('ZCARD', streams_key)
  local requests, requests_reset, requests_wait = in_minute(counts, 'r', 1, limits[1])
  local minute, minute_reset, minute_wait = in_minute(counts, 't', tokens, limits[2])
  local day = counts[today] or 0
  local waits = {requests_per_minute = requests_wait, tokens_per_minute = minute_wait}
  if limits[3] > 0 and day + tokens > limits[3] then waits.tokens_per_day = 86400000 - now % 86400000 end
  if limits[4] > 0 and streams >= limits[4] then waits.concurrent_streams = 1000 end
  local limit, longest = nil, 0
  for name, wait in pairs(waits) do
    if wait > longest then limit, longest = name, wait end
  end
  return {requests, requests_reset, minute, minute_reset, day, streams}, limit, longest
end

local function hold_account_slot(a, life_ms)
  redis.call('ZADD', a.streams, now + life_ms, ID)
  redis.call('PEXPIRE', a.streams, life_ms)
end

-- Counts a new stream, for `life_ms` at most. Returns `used` with it.
local function reserve(a, tokens, life_ms, used)
  add(a.used, 'r' .. second, 1)
  add(a.used, 't' .. second, tokens)
  add(a.used, today, tokens)
  hold_account_slot(a, life_ms)
  redis.call('HSET', OF, 'reserved', tokens, 'second', second)
  local full_minute = (second + 60) * 1000 - now
  local tokens_reset = tokens > 0 and full_minute or used[4]
  return {used[1] + 1, full_minute, used[3] + tokens, tokens_reset, used[5] + tokens, used[6] + 1}
end

-- Corrects a reservation by `more`: a surplus is returned to the fields it was `reserved` in; a deficit is charged to
-- the `current` ones.
local function correct(used_key, more, reserved, current)
  for _, field in ipairs(more > 0 and current or {}) do add(used_key, field, more) end
  for _, field in ipairs(more < 0 and reserved or {}) do
    if redis.call('HEXISTS', used_key, field) == 1 then add(used_key, field, more) end
  end
end

-- Frees the account's slot and corrects its reservation to `tokens`; nil means as many as were reserved.
local function settle(a, tokens)
  local reserved, at = unpack(redis.call('HMGET', OF, 'reserved', 'second'))
  if redis.call('ZREM', a.streams, ID) == 0 or not tokens or not reserved then return end
  correct(a.used, tokens - reserved, {'t' .. at, 'd' .. math.floor(at / 86400)}, {'t' .. second, today})
end
