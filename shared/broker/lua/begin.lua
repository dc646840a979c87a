#!lua
-- Creates a stream. It counts and is queued only with `admit`, the second step.
-- KEYS: 1-10 stream
-- ARGV: 1 body_hash, 2 retention_ms, 3 tombstone_ms, 4 look_after_ms (until the sweep looks for the second step),
--       5 reader_lease_ms, 6 fields… (field, value, …; `principal`, `account` and `on_disconnect` must be among them)
-- Status: none → queued
-- Replies {'CREATED', bytes of this stream}, {'KNOWN', id, body hash, status} if the idempotency key was used before,
-- {'EXISTS', status}, or {'UNSTORED'} if pieces of its request are missing (see store.lua).

local body_hash, retention_ms, tombstone_ms, look_after_ms, reader_lease_ms = unpack(ARGV, 1, 5)
if IDEMPOTENCY then
  local known = redis.call('GET', IDEMPOTENCY)
  if known then
    local id, hash = string.match(known, '^(%x+) (%x+)$')
    local state = string.gsub(STATE, '%x+:state$', id .. ':state')
    return {'KNOWN', id, hash, redis.call('HGET', state, 'status') or ''}
  end
end
if redis.call('EXISTS', STATE) == 1 then return {'EXISTS', redis.call('HGET', STATE, 'status')} end
need_rights('HGET HSET HSTRLEN PEXPIREAT SET ZADD', {})
local fields = {unpack(ARGV, 6)}
if not has_pieces(value_of(fields, 'request_bytes')) then return {'UNSTORED'} end

redis.call('HSET', STATE, 'status', 'queued', 'epoch', 0, 'log_epoch', 0, 'lead', 0, 'attempt', 0, 'live_until', 0,
  'polled_until', 0, 'created', now, unpack(fields))
-- The client counts as a reader until a gateway reports its readers; only a stream that can be abandoned needs one.
if redis.call('HGET', STATE, 'on_disconnect') == 'cancel' then
  redis.call('HSET', STATE, 'live_until', now + reader_lease_ms)
end
redis.call('ZADD', INDEX, now + look_after_ms, ID)
if IDEMPOTENCY then redis.call('SET', IDEMPOTENCY, ID .. ' ' .. body_hash) end
redis.call('SET', TOMBSTONE, 'live ' .. redis.call('HGET', STATE, 'principal'))
keep_until(now + retention_ms, tonumber(tombstone_ms))
return {'CREATED', bytes_of(fields)}
