#!lua
-- Admits a stream that `begin` has created: counts it and queues it, in one step, so that limits are exact.
-- KEYS: 1 of (see _desk.lua), 2 queue, 3 turns, 4 waiting, 5 waiting_accounts (2-5: see _queue.lua),
--       6 used, 7 streams (see _rate_limits.lua), 8 stored, 9 kept, 10 sources (see _storage.lua),
--       11 dropping (zset: id → end of the time in which no stream may be made from it), 12 job (string, arq's bytes),
--       13 batch_turns (see _queue.lua), 14 budgets… (see _budgets.lua)
-- ARGV: 1 stream_id, 2 account, 3 tokens (to reserve), 4 bytes (of the stream), 5 retention_ms,
--       6 longest_life_ms (after which its account forgets the stream),
--       7 requests_per_minute, 8 tokens_per_minute, 9 tokens_per_day, 10 concurrent_streams, 11 stored_bytes
--       (limits; 0: unlimited), 12 queue_depth, 13 queue_limit (queue_depth for accounts of which no stream waits),
--       14 targets (providers in order, separated by spaces), 15 sources (streams that it was made from),
--       16 final (limits for which the caller makes no room any more; that of requests, and the others, is final always),
--       17 force (1: it was created long ago, and must not be refused), 18 job (arq's bytes), 19 slot (1: count it among
--       the account's streams, also without limits), 20 batch (1: its class), 21 budgets… (in the order of the keys)
-- Replies {'QUEUED', queue position (0: it waits no more), used…, warnings…}, {'LIMITED', limit, ms until there is room,
-- used…}, {'BUDGET', budget, spent, reserved, warnings…}, {'STORED', bytes stored, bytes of this stream}, {'FULL', streams
-- waiting}, or {'SOURCE', id} if an answer that it was made from is being dropped, or {'GONE'} if it has ended or is gone.
-- A warning is a budget that is nearly spent, once in its period; a budget is `<account>:<period>:<kind>`. A repeated
-- call has the reply of the first, and counts nothing.

local stream_id, account, tokens, bytes, retention_ms, longest_life_ms, requests_per_minute, tokens_per_minute,
  tokens_per_day, concurrent_streams, stored_bytes, queue_depth, queue_limit, targets, sources, final,
  force, job, slot, batch = unpack(ARGV, 1, 20)
local USED, STREAMS, STORED, KEPT, SOURCES, DROPPING, JOB = unpack(KEYS, 6, 12)
local a = {used = USED, streams = STREAMS, stored = STORED, kept = KEPT, sources = SOURCES}
tokens, retention_ms, longest_life_ms = tonumber(tokens), tonumber(retention_ms), tonumber(longest_life_ms)
local limits, limited, used = {requests_per_minute, tokens_per_minute, tokens_per_day, concurrent_streams}, false, {}
for i, limit in ipairs(limits) do
  limits[i] = tonumber(limit)
  limited = limited or limits[i] > 0
end
local budgets, near = budgets_of_call(14, 21), {}
need_rights('DEL EXISTS HDEL HGET HGETALL HINCRBY HLEN HMGET HSET PEXPIRE PEXPIREAT ZADD ZCARD ZRANGE ZRANGEBYLEX ' ..
  'ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYSCORE ZSCORE SET' .. (#budgets > 0 and ' HEXISTS HKEYS HSETNX' or ''),
  {OF, QUEUE, JOB, TURNS, WAITING, WAITING_ACCOUNTS, USED, STREAMS, STORED, KEPT, SOURCES, unpack(KEYS, 13)})

-- Returns the reply that refuses the stream, and the limit if the caller may make room; nil if there is room.
local function refusal()
  if limited then
    local limit, wait
    used, limit, wait = check_limits(a, tokens, limits)
    if limit then return {'LIMITED', limit, wait, unpack(used)}, limit ~= 'requests_per_minute' and limit end
  end
  local over_budget
  over_budget, near = check_budgets(budgets)
  if over_budget then return over_budget, 'budget' end
  local stored = total_stored(a)
  if stored_bytes ~= '0' and stored + bytes > tonumber(stored_bytes) then
    return {'STORED', stored, tonumber(bytes)}, 'stored_bytes'
  end
  local waiting = count_waiting(retention_ms)
  if waiting >= tonumber(queue_depth) and (waiting >= tonumber(queue_limit) or is_waiting(account)) then
    return {'FULL', waiting}
  end
  for source in string.gmatch(sources, '%x+') do
    if now < tonumber(redis.call('ZSCORE', DROPPING, source) or 0) then return {'SOURCE', source} end
  end
end

local admitted, verdict = unpack(redis.call('HMGET', OF, 'account', 'refused'))
if admitted or verdict then
  if not verdict then
    if limited then used = check_limits(a, 0, {0, 0, 0, 0}) end
    return {'QUEUED', (redis.call('ZRANK', QUEUE, JOB_ID) or -1) + 1, unpack(used)}
  end
  local known = {}
  for word in string.gmatch(verdict, '%S+') do
    known[#known + 1] = #known > 1 and tonumber(word) or word
  end
  return known
end
local refused, limit
if force ~= '1' then refused, limit = refusal() end
if refused then
  local is_final = not limit or string.find(final, limit)
  redis.call('HSET', OF, is_final and 'refused' or 'undecided', table.concat(refused, ' '))
  redis.call('PEXPIRE', OF, 60000)
  if is_final and limit == 'budget' then add_warnings(refused, near) end
  return refused
end
redis.call('HSET', OF, 'account', account, 'tokens', tokens, 'targets', targets, 'sources', sources)
redis.call('PEXPIRE', OF, longest_life_ms + retention_ms)
redis.call('SET', JOB, job, 'PX', longest_life_ms + retention_ms)
count_stored(a, bytes, now + retention_ms)
keep_sources(a, sources, now + retention_ms)
if limited then
  if force == '1' then used = check_limits(a, 0, {0, 0, 0, 0}) end
  used = reserve(a, tokens, longest_life_ms, used)
elseif slot == '1' then
  hold_account_slot(a, longest_life_ms)
end
reserve_budgets(budgets)
return add_warnings({'QUEUED', enqueue(account, retention_ms, batch == '1'), unpack(used)}, near)
