#!lua
-- Puts as many parked streams as their provider has room for back into the queue, before all others, the lowest turn
-- first. One that does not fit keeps all behind it waiting.
-- KEYS: 1 running (zset: id → end of its lease, ms), 2 parked (zset: id → turn), 3 tokens (hash: id → expected tokens),
--       4 used (hash, see _rate_limits.lua), 5 queue (zset: id of the job → turn, the lowest is taken first)
-- ARGV: 1 concurrent_streams, 2 requests_per_minute, 3 tokens_per_minute (limits; 0: unlimited), 4 life_ms (of the queue)
-- Replies {id, …}, those that are queued now.

local RUNNING, PARKED, TOKENS, USED, QUEUE = unpack(KEYS, 1, 5)
local concurrent_streams, requests_per_minute, tokens_per_minute, life_ms = unpack(ARGV, 1, 4)
if redis.call('ZCARD', PARKED) == 0 then return {} end
need_rights('HDEL HGET HGETALL PEXPIRE ZADD ZCOUNT ZRANGE ZREM', {RUNNING, PARKED, TOKENS, USED, QUEUE})
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
for _, id in ipairs(free > 0 and redis.call('ZRANGE', PARKED, 0, free - 1) or {}) do
  used.t = used.t + math.min(most, tonumber(redis.call('HGET', TOKENS, id) or 0))
  if used.t > most then break end
  taken[#taken + 1] = id
end
if #taken > 0 then
  local tag = string.match(QUEUE, '{.-}')
  local head = redis.call('ZRANGE', QUEUE, 0, 0, 'WITHSCORES')[2] or 0
  for i, id in ipairs(taken) do redis.call('ZADD', QUEUE, 'NX', head - 1 - #taken + i, tag .. id) end
  redis.call('PEXPIRE', QUEUE, life_ms)
  redis.call('ZREM', PARKED, unpack(taken))
  redis.call('HDEL', TOKENS, unpack(taken))
end
return taken
