#!lua
-- Takes a slot of a provider for one call of a stream, and frees the one that it had before. The first call after a
-- take uses the slot that the take took, if it is of the same provider.
-- KEYS: 1 of (see _desk.lua), 2 lanes… (running, parked, tokens, used of each lane that the stream has or takes)
-- ARGV: 1 stream_id, 2 holder, 3 lease_ms, 4 provider, 5 target (whose running streams are counted; '': none),
--       6 concurrent_streams, 7 requests_per_minute, 8 tokens_per_minute (limits; 0: unlimited),
--       9 lanes… (in the order of the keys)
-- Replies {'OK', lanes}, {'FULL', limit, ms until there is room}, {'REFUSED'} if another holds the stream, or {'LANES',
-- lanes} (see lanes_lacking).

local stream_id, holder, lease_ms, provider, target, concurrent_streams, requests_per_minute,
  tokens_per_minute = unpack(ARGV, 1, 8)
local current, lane, lane_new, tokens = unpack(redis.call('HMGET', OF, 'holder', 'lane', 'lane_new', 'tokens'))
if current ~= holder then return {'REFUSED'} end
need_rights('HDEL HEXISTS HGET HGETALL HINCRBY HSET PEXPIRE PEXPIREAT ZADD ZCOUNT ZREM ZREMRANGEBYSCORE ZSCORE', KEYS)
name_lanes(2, {unpack(ARGV, 9)})
local lacking = lanes_lacking()
if lacking then return {'LANES', lacking} end
local limits = {tonumber(concurrent_streams), tonumber(requests_per_minute), tonumber(tokens_per_minute)}
local lanes = limits[1] + limits[2] + limits[3] > 0 and provider or ''
if target ~= '' then lanes = lanes .. '\n' .. target end
if lane_new and lane == provider then
  redis.call('HDEL', OF, 'lane_new')
  redis.call('HSET', OF, 'lane', lanes)
  hold_lanes(lanes, now + lease_ms)
  return {'OK', lanes}
end
tokens = tonumber(tokens or 0)
local limit, wait_ms = limit_reached(provider, limits, tokens)
if limit then return {'FULL', limit, wait_ms} end
leave_lanes(0) -- a former call had no output
if lanes ~= '' then enter_lanes(lanes, provider, limits, tokens, now + lease_ms) end
return {'OK', lanes}
