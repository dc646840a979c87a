-- Stored bytes of each account, for the scripts in which a stream begins, grows or ends. keys.py describes the keys; `a`
-- has those of the account. A script of a bucket counts the bytes (_content.lua).

-- Gives back the bytes of some streams.
local function give_back(a, ids)
  local bytes = 0
  for _, taken in ipairs(redis.call('HMGET', a.stored, unpack(ids))) do bytes = bytes + (taken or 0) end
  redis.call('HDEL', a.stored, unpack(ids))
  redis.call('ZREM', a.kept, unpack(ids))
  if bytes > 0 then redis.call('HINCRBY', a.stored, 'total', -bytes) end
  return bytes
end

-- Counts the bytes of the stream, until `expires`.
local function count_stored(a, bytes, expires)
  redis.call('HINCRBY', a.stored, 'total', bytes - (redis.call('HGET', a.stored, ID) or 0))
  redis.call('HSET', a.stored, ID, bytes)
  redis.call('ZADD', a.kept, expires, ID)
  live_until(a.stored, expires)
  live_until(a.kept, expires)
end

-- Bytes that the account's streams take, without those that have expired.
local function total_stored(a)
  repeat
    local expired = redis.call('ZRANGEBYSCORE', a.kept, '-inf', now, 'LIMIT', 0, 1000)
    if #expired > 0 then give_back(a, expired) end
  until #expired < 1000
  return tonumber(redis.call('HGET', a.stored, 'total') or 0)
end

-- Notes that the stream was deleted or dropped. What stays of it, the tombstone and the idempotency entry, is not
-- counted, so an account has at most 10,000: of the oldest nothing stays, if no worker can hold their streams any more.
-- `removed` has members `<id> <digest of the idempotency key>`, by the time of removal. Returns those of which the
-- caller deletes what stays.
local function note_removed(a, digest, tombstone_ms)
  local removed = a.removed
  redis.call('ZADD', removed, 'NX', now, ID .. ' ' .. digest)
  redis.call('PEXPIRE', removed, tombstone_ms)
  redis.call('ZREMRANGEBYSCORE', removed, '-inf', now - tombstone_ms)
  if redis.call('ZCARD', removed) <= 10000 then return {} end
  local forgotten = {}
  local oldest = redis.call('ZRANGE', removed, 0, 1, 'WITHSCORES')
  for i = 1, #oldest, 2 do
    if tonumber(oldest[i + 1]) < now - 120000 then
      forgotten[#forgotten + 1] = oldest[i]
      redis.call('ZREM', removed, oldest[i])
    end
  end
  return forgotten
end

-- True if the stream was deleted or dropped. The sweep notes that without a digest.
local function is_removed(a, digest)
  return redis.call('ZSCORE', a.removed, ID .. ' ' .. digest) or redis.call('ZSCORE', a.removed, ID .. ' ')
end

-- Compares the account with its limit (0 or nil: none). Above it, the sweep drops the account's oldest answers. Returns
-- true if it is above by more than a quarter: then its streams have to stop.
local function is_far_above(a, account, limit)
  limit = tonumber(limit or 0)
  local excess = limit > 0 and (redis.call('HGET', a.stored, 'total') or 0) - limit or 0
  if excess > 0 then
    redis.call('ZADD', a.above_limit, limit, account)
    redis.call('PEXPIRE', a.above_limit, 60000)
  end
  return excess > limit / 4
end

-- The streams that this one was made from (`ids`, separated by spaces) are kept until it has ended. `sources` has
-- members `<source> <stream>`, all with the same score.
local function keep_sources(a, ids, expires)
  for source in string.gmatch(ids or '', '%x+') do redis.call('ZADD', a.sources, 0, source .. ' ' .. ID) end
  if ids and ids ~= '' then live_until(a.sources, expires) end
end

local function forget_sources(a, ids)
  for source in string.gmatch(ids or '', '%x+') do redis.call('ZREM', a.sources, source .. ' ' .. ID) end
end

-- True if a stream that waits or runs was made from this one. A stream that expired before its end counts no more.
local function is_source(a)
  while true do
    local member = redis.call('ZRANGEBYLEX', a.sources, '[' .. ID .. ' ', '(' .. ID .. '!', 'LIMIT', 0, 1)[1]
    if not member then return false end
    if redis.call('HEXISTS', a.stored, string.match(member, ' (%x+)$')) == 1 then return true end
    redis.call('ZREM', a.sources, member)
  end
end
