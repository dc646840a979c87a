-- Stored bytes of each account: the payload that scripts write for its streams, counted exactly at creation, with each
-- renewal and at the end. keys.py describes the keys; they are derived from the account, which the state has.
-- A stream takes STREAM_BYTES for its bookkeeping, the fields of its state that hold content, the pieces of its request,
-- and its log: compressed chunks, and until the end the events in the tail.

local STREAM_BYTES = 5120
local CONTENT = {request = true, metadata = true, shown = true, response = true, sources = true, error = true}

local function storage_keys(account)
  return 'hr:{desk}:stored:' .. account, 'hr:{desk}:kept:' .. account, 'hr:{desk}:sources:' .. account
end

-- Bytes of a stream with these fields (field, value, …) and an empty log.
local function bytes_of(fields)
  local bytes = STREAM_BYTES + (value_of(fields, 'request_bytes') or 0)
  for i = 1, #fields, 2 do
    if CONTENT[fields[i]] then bytes = bytes + #fields[i + 1] end
  end
  return bytes
end

local function remember_count(log_epoch, n, bytes)
  redis.call('HSET', STATE, 'counted', string.format('%s %d %d', log_epoch, n, bytes))
end

-- Bytes of the first `count` events of the tail from seq `first` on.
local function event_bytes(s, first, count)
  local bytes, id = 0, epoch_of(first, s.log_epoch, s.lineage) .. '-' .. first
  for _, entry in ipairs(redis.call('XRANGE', TAIL, id, '+', 'COUNT', count)) do bytes = bytes + #entry[2][2] end
  return bytes
end

-- Bytes of the log. `counted` remembers the count of an earlier call: epoch, events, bytes. The end replaces all by new
-- chunks, which are counted anew.
local function log_bytes()
  local s = load('status', 'log_epoch', 'lineage', 'counted', 'chunks')
  local epoch, upto, bytes = string.match(s.counted or '', '^(%d+) (%d+) (%d+)$')
  local n = count_events(s)
  if epoch ~= s.log_epoch or not active(s) or tonumber(upto) > n then
    upto, bytes = last_in_chunks(s.chunks), 0
    for _, chunk in ipairs(redis.call('LRANGE', LOG, 0, -1)) do bytes = bytes + #chunk end
  end
  if n > tonumber(upto) then bytes = bytes + event_bytes(s, upto + 1, n - upto) end
  remember_count(s.log_epoch, n, bytes)
  return bytes
end

-- Gives back the bytes of some streams.
local function give_back(account, ids)
  local stored, kept = storage_keys(account)
  local bytes = 0
  for _, taken in ipairs(redis.call('HMGET', stored, unpack(ids))) do bytes = bytes + (taken or 0) end
  redis.call('HDEL', stored, unpack(ids))
  redis.call('ZREM', kept, unpack(ids))
  if bytes > 0 then redis.call('HINCRBY', stored, 'total', -bytes) end
  return bytes
end

-- Counts what the stream takes now, until `expires`.
local function count_stored(account, expires)
  local stored, kept = storage_keys(account)
  local bytes = STREAM_BYTES + log_bytes() + (redis.call('HGET', STATE, 'request_bytes') or 0)
  for name in pairs(CONTENT) do bytes = bytes + redis.call('HSTRLEN', STATE, name) end
  redis.call('HINCRBY', stored, 'total', bytes - (redis.call('HGET', stored, ID) or 0))
  redis.call('HSET', stored, ID, bytes)
  redis.call('ZADD', kept, expires, ID)
  live_until(stored, expires)
  live_until(kept, expires)
end

-- Bytes that the account's streams take, without those that have expired.
local function total_stored(account)
  local stored, kept = storage_keys(account)
  repeat
    local expired = redis.call('ZRANGEBYSCORE', kept, '-inf', now, 'LIMIT', 0, 1000)
    if #expired > 0 then give_back(account, expired) end
  until #expired < 1000
  return tonumber(redis.call('HGET', stored, 'total') or 0)
end

-- Marks the stream as `word` (deleted or dropped). What stays of it, the tombstone and the idempotency entry, is not
-- counted, so an account has at most 10,000: of the oldest nothing stays, if no worker can hold their streams any more.
-- `removed` has members `<id> <digest of the idempotency key>`, by the time of removal. Returns those of which the
-- caller deletes what stays.
local function leave_tombstone(word, s, tombstone_ms)
  local removed = 'hr:{desk}:removed:' .. s.account
  redis.call('SET', TOMBSTONE, word .. ' ' .. s.principal, 'PX', tombstone_ms)
  redis.call('ZADD', removed, now, ID .. ' ' .. (s.idempotency or ''))
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

-- Compares the account with its limit (0 or nil: none). Above it, the sweep drops the account's oldest answers. Returns
-- true if it is above by more than a quarter: then its streams have to stop.
local function is_far_above(account, limit)
  limit = tonumber(limit or 0)
  local excess = limit > 0 and (redis.call('HGET', storage_keys(account), 'total') or 0) - limit or 0
  if excess > 0 then
    redis.call('ZADD', 'hr:{desk}:above_limit', excess, account)
    redis.call('PEXPIRE', 'hr:{desk}:above_limit', 60000)
  end
  return excess > limit / 4
end

-- The streams that this one was made from (`ids`, separated by spaces) are kept until it has ended. `sources` has
-- members `<source> <stream>`, all with the same score.
local function keep_sources(account, ids, expires)
  local _, _, sources = storage_keys(account)
  for source in string.gmatch(ids or '', '%x+') do redis.call('ZADD', sources, 0, source .. ' ' .. ID) end
  if ids then live_until(sources, expires) end
end

local function forget_sources(account, ids)
  local _, _, sources = storage_keys(account)
  for source in string.gmatch(ids or '', '%x+') do redis.call('ZREM', sources, source .. ' ' .. ID) end
end

-- True if a stream that waits or runs was made from this one. A stream that expired before its end counts no more.
local function is_source(account)
  local stored, _, sources = storage_keys(account)
  while true do
    local member = redis.call('ZRANGEBYLEX', sources, '[' .. ID .. ' ', '(' .. ID .. '!', 'LIMIT', 0, 1)[1]
    if not member then return false end
    if redis.call('HEXISTS', stored, string.match(member, ' (%x+)$')) == 1 then return true end
    redis.call('ZREM', sources, member)
  end
end
