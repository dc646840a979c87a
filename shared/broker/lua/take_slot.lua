#!lua
-- Takes a slot of a provider for one call of a stream, and frees the one that it had before. The first call after a
-- claim uses the slot that the claim took, if it is of the same provider.
-- KEYS: 1-10 stream
-- ARGV: 1 epoch, 2 holder, 3 lease_ms, 4 provider, 5 target (whose running streams are counted; '': none),
--       6 concurrent_streams, 7 requests_per_minute, 8 tokens_per_minute (limits; 0: unlimited)
-- Status: unchanged
-- Replies {'OK', lanes}, {'FULL', limit, ms until there is room}, or as append does to a caller that may not write.

local epoch, holder, lease_ms, provider, target, concurrent_streams, requests_per_minute, tokens_per_minute =
  unpack(ARGV, 1, 8)
local s = load_for_writer()
local refusal = refuse(s, tonumber(epoch), holder)
if refusal then return refusal end
need_rights('HDEL HEXISTS HGETALL HINCRBY HSET PEXPIRE PEXPIREAT ZADD ZCOUNT ZREM ZREMRANGEBYSCORE ZSCORE',
  {'hr:{desk}:any'})
load_into(s, 'expected_tokens')
account_keys()
s.lane, s.lane_new = unpack(redis.call('HMGET', OF, 'lane', 'lane_new'))
local limits = {tonumber(concurrent_streams), tonumber(requests_per_minute), tonumber(tokens_per_minute)}
local lanes = limits[1] + limits[2] + limits[3] > 0 and provider or ''
if target ~= '' then lanes = lanes .. '\n' .. target end
if s.lane_new and s.lane == provider then
  redis.call('HDEL', OF, 'lane_new')
  redis.call('HSET', OF, 'lane', lanes)
  hold_lanes(lanes, now + lease_ms)
  return {'OK', lanes}
end
local tokens = tonumber(s.expected_tokens or 0)
local limit, wait_ms = limit_reached(provider, limits, tokens)
if limit then return {'FULL', limit, wait_ms} end
leave_lanes(0) -- a former call had no output
if lanes ~= '' then enter_lanes(lanes, provider, limits, tokens, now + lease_ms) end
return {'OK', lanes}
