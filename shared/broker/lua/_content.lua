-- Bytes of a stream: the payload that scripts write for it, counted exactly at creation, with each renewal and at the end.
-- A stream takes STREAM_BYTES for its bookkeeping, the fields of its state that hold content, the pieces of its request,
-- and its log: compressed chunks, and until the end the events in the tail.

local STREAM_BYTES = 5120
local CONTENT = {request = true, metadata = true, shown = true, response = true, sources = true, error = true}

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

-- Writes the state anew without these fields. Redis keeps a hash of short values in a third of the memory, but not one
-- that ever had a long value, such as the request.
local function rewrite_state_without(left_out)
  local fields, kept = redis.call('HGETALL', STATE), {}
  for i = 1, #fields, 2 do
    if not left_out[fields[i]] then
      kept[#kept + 1] = fields[i]
      kept[#kept + 1] = fields[i + 1]
    end
  end
  redis.call('DEL', STATE)
  redis.call('HSET', STATE, unpack(kept))
end

-- Bytes that the stream takes now.
local function stored_bytes()
  local bytes = STREAM_BYTES + log_bytes() + (redis.call('HGET', STATE, 'request_bytes') or 0)
  for name in pairs(CONTENT) do bytes = bytes + redis.call('HSTRLEN', STATE, name) end
  return bytes
end
