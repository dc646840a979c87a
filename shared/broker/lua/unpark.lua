#!lua
-- Puts as many parked streams as their provider has room for back into the queue, before all others of their class, the
-- lowest turn first. One that does not fit keeps all behind it waiting. After so many interactive streams a batch stream
-- is chosen, and goes first of all (see _classes.lua).
-- KEYS: 1 running (zset: id → end of its lease, ms), 2 parked (zset: id → turn), 3 tokens (hash: id → expected tokens;
--       `passing`: interactive streams that passed the first batch one, `chosen`: the last batch one that went first),
--       4 used (hash, see _rate_limits.lua), 5 queue (zset: id of the job → turn, the lowest is taken first)
-- ARGV: 1 concurrent_streams, 2 requests_per_minute, 3 tokens_per_minute (limits; 0: unlimited), 4 life_ms (of the queue)
-- Replies {id, …}, those that are queued now.

local RUNNING, PARKED, TOKENS, USED, QUEUE = unpack(KEYS, 1, 5)
local concurrent_streams, requests_per_minute, tokens_per_minute, life_ms = unpack(ARGV, 1, 4)
if redis.call('ZCARD', PARKED) == 0 then return {} end
need_rights('HDEL HGET HGETALL HINCRBY HSET PEXPIRE ZADD ZCOUNT ZRANGE ZRANGEBYSCORE ZREM ZSCORE', {RUNNING, PARKED, TOKENS, USED, QUEUE})
local used, flat, free, taken = {r = 0, t = 0}, redis.call('HGETALL', USED), 100, {}
for i = 1, #flat, 2 do
  local kind, at = string.match(flat[i], '^([rt])(%d+)$')
  if kind and tonumber(at) > clock[1] - 60 then used[kind] = used[kind] + flat[i + 1] end
end
if concurrent_streams ~= '0' then
  local running = redis.call('ZCOUNT', RUNNING, clock[1] * 1000 + math.floor(clock[2] / 1000), '+inf')
  free = math.min(free, concurrent_streams - running)
end
if requests_per_minute ~= '0' then free = math.min(free, requests_per_minute - used.r) end
local most = tonumber(tokens_per_minute)
local batch_id = first_batch(PARKED)
local is_chosen = batch_id and tonumber(redis.call('HGET', TOKENS, 'passing') or 0) >= MOST_PASSING
local first_ids, rest = is_chosen and {batch_id} or {}, free > 0 and redis.call('ZRANGE', PARKED, 0, free - 1) or {}
for _, id in ipairs(rest) do
  if not (is_chosen and id == batch_id) then first_ids[#first_ids + 1] = id end
end
for i = 1, math.min(free, #first_ids) do
  used.t = used.t + math.min(most, tonumber(redis.call('HGET', TOKENS, first_ids[i]) or 0))
  if used.t > most then break end
  taken[#taken + 1] = first_ids[i]
end
if #taken == 0 then return taken end

local tag, passing = string.match(QUEUE, '{.-}'), 0
for i = #taken, 1, -1 do -- each goes before those behind it
  local turn = redis.call('ZSCORE', PARKED, taken[i])
  if is_chosen and i == 1 then turn = nil end
  if not is_batch(turn) then passing = passing + 1 end
  redis.call('ZADD', QUEUE, 'NX', front(QUEUE, turn, 1), tag .. taken[i])
end
redis.call('PEXPIRE', QUEUE, life_ms)
if is_chosen then
  redis.call('HSET', TOKENS, 'passing', 0, 'chosen', batch_id)
  redis.call('PEXPIRE', TOKENS, life_ms, 'NX')
elseif batch_id then
  redis.call('HINCRBY', TOKENS, 'passing', passing)
  redis.call('PEXPIRE', TOKENS, life_ms, 'NX')
end
redis.call('ZREM', PARKED, unpack(taken))
redis.call('HDEL', TOKENS, unpack(taken))
return taken
