-- Limits of providers over all workers: streams at once, requests and tokens a minute. A lane is a provider, or one of
-- its targets whose streams are only counted. The hash `of` has `lane` (lanes in which the stream runs, one a line),
-- `lane_tokens` and `lane_second` (what is reserved, and when), `lane_new` (1: no call was made yet), and `parked`
-- (providers for which it waits, separated by spaces).
-- Keys of a lane: running (zset): id → end of its lease, ms; of a provider also parked (zset): id → turn, tokens (hash):
-- id → expected tokens of those parked (and two fields of unpark.lua), and used (hash): counters as an account's. `limits` is {streams, requests, tokens}; 0: unlimited.

-- Keys of the lanes that the call is about, by lane and kind. A script touches no others.
local LANES = {}

-- Names the lanes in the order of their keys, which begin at KEYS[at], four of each.
local function name_lanes(at, lanes)
  for i, lane in ipairs(lanes) do
    local running, parked, tokens, used = unpack(KEYS, at + 4 * i - 4, at + 4 * i - 1)
    LANES[lane] = {running = running, parked = parked, tokens = tokens, used = used}
  end
end

local function lane_key(lane, kind) return LANES[lane] and LANES[lane][kind] end

-- Returns all lanes of the stream, one a line, if the call lacks the keys of one of them: then nothing is changed, and the
-- caller repeats the call with them.
local function lanes_lacking()
  local lane, parked = unpack(redis.call('HMGET', OF, 'lane', 'parked'))
  local all = (lane or '') .. '\n' .. string.gsub(parked or '', ' ', '\n')
  for each in string.gmatch(all, '[^\n]+') do
    if not LANES[each] then return all end
  end
end

-- Returns the limit that one more call would exceed, and ms until it would not; nil if there is room. A request of more
-- tokens than the limit needs all of it.
local function limit_reached(provider, limits, tokens)
  local running = lane_key(provider, 'running')
  local is_new = limits[1] > 0 and not redis.call('ZSCORE', running, ID)
  if is_new and redis.call('ZCOUNT', running, now, '+inf') >= limits[1] then return 'concurrent_streams', 1000 end
  if limits[2] == 0 and limits[3] == 0 then return end
  local counts = recent_counts(lane_key(provider, 'used'))
  local _, _, requests_wait = in_minute(counts, 'r', 1, limits[2])
  if requests_wait > 0 then return 'requests_per_minute', requests_wait end
  local _, _, tokens_wait = in_minute(counts, 't', math.min(tokens, limits[3]), limits[3])
  if tokens_wait > 0 then return 'tokens_per_minute', tokens_wait end
end

-- True if a stream with a lower turn waits for the provider's tokens: smaller requests must not overtake it for ever.
-- A batch stream whose turn it is, though interactive ones wait, is behind none.
local function is_behind(provider, limits, turn)
  if limits[3] == 0 then return false end
  local first = redis.call('ZRANGE', lane_key(provider, 'parked'), 0, 0, 'WITHSCORES')
  if not first[1] or first[1] == ID or tonumber(first[2]) >= tonumber(turn) then return false end
  return redis.call('HGET', lane_key(provider, 'tokens'), 'chosen') ~= ID
end

-- Lets the stream wait for any of `providers`. unpark.lua releases it when one has room.
local function park(providers, turn, tokens)
  for _, provider in ipairs(providers) do
    redis.call('ZADD', lane_key(provider, 'parked'), turn, ID)
    redis.call('HSET', lane_key(provider, 'tokens'), ID, tokens)
    for _, kind in ipairs({'parked', 'tokens'}) do
      redis.call('PEXPIREAT', lane_key(provider, kind), redis.call('PEXPIRETIME', OF))
    end
  end
  redis.call('HSET', OF, 'parked', table.concat(providers, ' '))
end

local function hold_lanes(lanes, until_ms)
  for lane in string.gmatch(lanes or '', '[^\n]+') do
    local running = lane_key(lane, 'running')
    redis.call('ZADD', running, until_ms, ID)
    redis.call('ZREMRANGEBYSCORE', running, '-inf', now)
    redis.call('PEXPIREAT', running, until_ms + 86400000)
  end
end

-- Counts a call at the provider, and holds `lanes`.
local function enter_lanes(lanes, provider, limits, tokens, until_ms)
  redis.call('HSET', OF, 'lane', lanes)
  live_until(OF, until_ms)
  if limits[2] + limits[3] > 0 then
    add(lane_key(provider, 'used'), 'r' .. second, 1)
    add(lane_key(provider, 'used'), 't' .. second, tokens)
    redis.call('HSET', OF, 'lane_tokens', tokens, 'lane_second', second)
  end
  hold_lanes(lanes, until_ms)
end

-- Frees the stream's slots and its places among the parked. `tokens`: what its call used; nil keeps the reservation.
local function leave_lanes(tokens)
  local s = {}
  for _, name in ipairs({'lane', 'lane_tokens', 'lane_second', 'lane_new', 'parked'}) do
    s[name] = redis.call('HGET', OF, name)
  end
  for lane in string.gmatch(s.lane or '', '[^\n]+') do redis.call('ZREM', lane_key(lane, 'running'), ID) end
  for provider in string.gmatch(s.parked or '', '%S+') do
    redis.call('ZREM', lane_key(provider, 'parked'), ID)
    redis.call('HDEL', lane_key(provider, 'tokens'), ID)
  end
  if s.lane_tokens and tokens then
    local used = lane_key(string.match(s.lane, '^[^\n]+'), 'used')
    correct(used, tokens - s.lane_tokens, {'t' .. s.lane_second}, {'t' .. second})
    if s.lane_new then correct(used, -1, {'r' .. s.lane_second}, {}) end
  end
  if s.lane or s.parked then
    redis.call('HDEL', OF, 'lane', 'lane_tokens', 'lane_second', 'lane_new', 'parked')
  end
end
