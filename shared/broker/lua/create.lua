#!lua
-- Makes a stream and queues it, in one step: so limits are exact, and nothing of it is there without the rest.
-- KEYS: 9-12 see _queue.lua, 13 owned (zset: id → when it was created, ms)
-- ARGV: 1 body hash, 2 retention ms, 3 tombstone ms, 4 ms until the sweep looks for its job, 5 reader lease ms, 6 job,
--       7 how many may wait, 8 account, 9 tokens to reserve, 10 ms after which an account forgets a stream at the latest,
--       11-14 limits: requests a minute, tokens a minute, tokens a day, streams; 0 for none,
--       15.. field, value, … (`principal` and `on_disconnect` must be among them)
-- Answers {'CREATED', place in the queue, used…}, {'KNOWN', id, body hash} where the idempotency key was used before,
-- {'LIMITED', which limit, ms until there is room, used…}, {'FULL', how many wait} or {'EXISTS'}.

if IDEMPOTENCY then
  local known = redis.call('GET', IDEMPOTENCY)
  if known then
    local id, hash = string.match(known, '^(%x+) (%x+)$')
    return {'KNOWN', id, hash}
  end
end
if redis.call('EXISTS', STATE) == 1 then return {'EXISTS'} end

local account, tokens, limits, limited, used = ARGV[8], tonumber(ARGV[9]), {}, false, {}
for i = 1, 4 do
  limits[i] = tonumber(ARGV[10 + i])
  limited = limited or limits[i] > 0
end
if limited then
  local limit, wait
  used, limit, wait = weigh(account, tokens, limits)
  if limit then return {'LIMITED', limit, wait, unpack(used)} end
end
local waiting = count_waiting(ARGV[2])
if waiting >= tonumber(ARGV[7]) then return {'FULL', waiting} end

redis.call('HSET', STATE, 'status', 'queued', 'epoch', 0, 'log_epoch', 0, 'lead', 0, 'attempt', 0, 'live_until', 0,
  'polled_until', 0, 'created', now, unpack(ARGV, 15))
-- Who asks is taken for a reader until a gateway says more; a stream that nobody can abandon needs none.
if redis.call('HGET', STATE, 'on_disconnect') == 'cancel' then redis.call('HSET', STATE, 'live_until', now + ARGV[5]) end
redis.call('ZADD', INDEX, now + ARGV[4], ID)
if IDEMPOTENCY then redis.call('SET', IDEMPOTENCY, ID .. ' ' .. ARGV[1]) end
redis.call('SET', TOMBSTONE, 'live ' .. redis.call('HGET', STATE, 'principal'))
keep_until(now + ARGV[2], tonumber(ARGV[3]))
redis.call('ZADD', KEYS[13], now, ID)
redis.call('ZREMRANGEBYRANK', KEYS[13], 0, -10001)
redis.call('PEXPIRE', KEYS[13], ARGV[2])
if limited then used = reserve(account, tokens, tonumber(ARGV[10]), used) end
return {'CREATED', enqueue(account, ARGV[6], ARGV[2]), unpack(used)}
