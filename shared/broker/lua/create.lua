#!lua
-- Creates a stream and queues it, in one step: limits are exact, and no part of it exists without the rest.
-- KEYS: 1-10 stream, 11 queue, 12 job, 13 turns, 14 waiting (11-14: see _queue.lua),
--       15 principal_streams (zset: id → time of creation, ms)
-- ARGV: 1 body_hash, 2 retention_ms, 3 tombstone_ms, 4 look_after_ms (until the sweep looks for its job),
--       5 reader_lease_ms, 6 job, 7 queue_depth, 8 account, 9 tokens (to reserve),
--       10 longest_life_ms (after which its account forgets the stream),
--       11 requests_per_minute, 12 tokens_per_minute, 13 tokens_per_day, 14 concurrent_streams,
--       15 stored_bytes (limits; 0: unlimited), 16 queue_limit (queue_depth for accounts of which no stream waits),
--       17 fields… (field, value, …; `principal` and `on_disconnect` must be among them)
-- Status: none → queued
-- Replies {'CREATED', queue position, used…}, {'KNOWN', id, body hash} if the idempotency key was used before,
-- {'LIMITED', limit, ms until there is room, used…}, {'STORED', bytes stored, bytes of this stream},
-- {'FULL', streams waiting}, {'EXISTS'}, or {'UNSTORED'} if pieces of its request are missing (see store.lua).

local body_hash, retention_ms, tombstone_ms, look_after_ms, reader_lease_ms, job, queue_depth, account, tokens,
  longest_life_ms, requests_per_minute, tokens_per_minute, tokens_per_day, concurrent_streams,
  stored_bytes, queue_limit = unpack(ARGV, 1, 16)
local PRINCIPAL_STREAMS = KEYS[15]
if IDEMPOTENCY then
  local known = redis.call('GET', IDEMPOTENCY)
  if known then
    local id, hash = string.match(known, '^(%x+) (%x+)$')
    return {'KNOWN', id, hash}
  end
end
if redis.call('EXISTS', STATE) == 1 then return {'EXISTS'} end
need_rights('DEL HDEL HGET HGETALL HINCRBY HLEN HMGET HSET HSTRLEN LRANGE PEXPIRE PEXPIREAT SET XLEN ZADD ZCARD ZRANGE ' ..
  'ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYRANK ZREMRANGEBYSCORE',
  {IDEMPOTENCY or STATE, QUEUE, JOB, TURNS, WAITING, PRINCIPAL_STREAMS, account_keys(account), storage_keys(account)})

tokens = tonumber(tokens)
local limits, limited, used = {requests_per_minute, tokens_per_minute, tokens_per_day, concurrent_streams}, false, {}
for i, limit in ipairs(limits) do
  limits[i] = tonumber(limit)
  limited = limited or limits[i] > 0
end
if limited then
  local limit, wait
  used, limit, wait = check_limits(account, tokens, limits)
  if limit then return {'LIMITED', limit, wait, unpack(used)} end
end
local fields = {unpack(ARGV, 17)}
local stored, bytes = total_stored(account), bytes_of(fields)
if stored_bytes ~= '0' and stored + bytes > tonumber(stored_bytes) then return {'STORED', stored, bytes} end
local waiting = count_waiting(retention_ms)
if waiting >= tonumber(queue_depth) and (waiting >= tonumber(queue_limit) or is_waiting(account, retention_ms)) then
  return {'FULL', waiting}
end
if not has_pieces(value_of(fields, 'request_bytes')) then return {'UNSTORED'} end

redis.call('HSET', STATE, 'status', 'queued', 'epoch', 0, 'log_epoch', 0, 'lead', 0, 'attempt', 0, 'live_until', 0,
  'polled_until', 0, 'created', now, 'account', account, 'stored_limit', stored_bytes, unpack(ARGV, 17))
-- The client counts as a reader until a gateway reports its readers; only a stream that can be abandoned needs one.
if redis.call('HGET', STATE, 'on_disconnect') == 'cancel' then
  redis.call('HSET', STATE, 'live_until', now + reader_lease_ms)
end
redis.call('ZADD', INDEX, now + look_after_ms, ID)
if IDEMPOTENCY then redis.call('SET', IDEMPOTENCY, ID .. ' ' .. body_hash) end
redis.call('SET', TOMBSTONE, 'live ' .. redis.call('HGET', STATE, 'principal'))
keep_until(now + retention_ms, tonumber(tombstone_ms))
redis.call('ZADD', PRINCIPAL_STREAMS, now, ID)
redis.call('ZREMRANGEBYRANK', PRINCIPAL_STREAMS, 0, -10001)
redis.call('PEXPIRE', PRINCIPAL_STREAMS, longest_life_ms + retention_ms)
count_stored(account, now + retention_ms)
keep_sources(account, redis.call('HGET', STATE, 'sources') or nil, now + retention_ms)
if limited then used = reserve(account, tokens, tonumber(longest_life_ms), used) end
return {'CREATED', enqueue(account, job, retention_ms), unpack(used)}
