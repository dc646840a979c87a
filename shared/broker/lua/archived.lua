#!lua flags=allow-oom
-- Notes that a stream is in the archive: it is kept here for the rest of its retention only, and without its request,
-- unless a later request may continue it.
-- KEYS: 1-10 stream, 11 dead_letters (as for deliver)
-- ARGV: 1 unarchived (as the caller has read it), 2 retention_ms, 3 tombstone_ms, 4 delivery_ms (as for finish)
-- Status: unchanged
-- Replies ARCHIVED; OWED if the desk has to settle the stream (again), since its bytes are others now; OTHER if the stream
-- ended again meanwhile, or was noted before; DELETED if its owner has deleted it, so that the archive must not have it;
-- or GONE.

local unarchived, retention_ms, tombstone_ms, delivery_ms = unpack(ARGV, 1, 4)
local DEAD_LETTERS = KEYS[11]
local s = load('status', 'ended', 'unarchived', 'undelivered', 'owed', 'follow_up')
if not s.status then return removed() == 'deleted' and 'DELETED' or 'GONE' end
if s.unarchived ~= unarchived then return 'OTHER' end
need_rights('DEL HDEL HGET HGETALL HMGET HSET HSTRLEN LRANGE PEXPIREAT UNLINK XLEN XRANGE ZADD ZREM ZSCORE', {DEAD_LETTERS})

local given_up = redis.call('ZSCORE', DEAD_LETTERS, ID)
local keep_to = math.max(s.ended + retention_ms, s.undelivered and s.undelivered + delivery_ms or 0,
  given_up and given_up + retention_ms or 0)
local owed = s.owed
redis.call('HDEL', STATE, 'unarchived')
if not s.follow_up and keep_to > now then
  redis.call('HDEL', STATE, 'request', 'request_bytes')
  redis.call('UNLINK', REQUEST)
  -- The desk has counted tokens and cost, if it is not owed them.
  local tokens, cost = string.match(owed or '0 0 0', '^(%S+) %S+ (%S+)$')
  owed = tokens .. ' ' .. stored_bytes() .. ' ' .. cost
  redis.call('HSET', STATE, 'owed', owed)
  rewrite_state_without({counted = true})
end
redis.call('HSET', STATE, 'expires', keep_to)
keep_ended_until(keep_to)
redis.call('PEXPIREAT', TOMBSTONE, math.max(now, keep_to) + tombstone_ms)
if owed then redis.call('ZADD', INDEX, now + 2000, ID) elseif not s.undelivered then redis.call('ZREM', INDEX, ID) end
return owed and 'OWED' or 'ARCHIVED'
