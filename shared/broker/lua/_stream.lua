-- The common start of every script of one stream; scripts.py puts it after the script's first line.
-- KEYS: 1 state (hash), 2 log (list), 3 tail (stream), 4 readers (zset), 5 index (zset), 6 tombstone (string),
--       7 pulse (hash), 8 request (hash; pieces of a large request, see store.lua), 9 answers (zset),
--       10 idempotency (string; missing or equal to 1 if the stream has no idempotency entry)

local STATE, LOG, TAIL, READERS, INDEX, TOMBSTONE, PULSE, REQUEST, ANSWERS, IDEMPOTENCY = unpack(KEYS)
if IDEMPOTENCY == STATE then IDEMPOTENCY = nil end
local ID = string.match(STATE, ':(%x+):state$')

-- Makes another stream the one that all functions here are about. Its keys begin at KEYS[at], in the order above, and
-- end at KEYS[upto]. The names of tombstone and pulse, which are only read, follow from the first.
local CHOSEN = 1
local function choose_stream(at, upto)
  CHOSEN = at
  STATE, LOG, TAIL, READERS, INDEX, TOMBSTONE, PULSE, REQUEST, ANSWERS, IDEMPOTENCY = unpack(KEYS, at, upto)
  if IDEMPOTENCY == STATE then IDEMPOTENCY = nil end
  local prefix
  prefix, ID = string.match(STATE, '^(.*:)(%x+):state$')
  TOMBSTONE, PULSE = TOMBSTONE or prefix .. ID .. ':tombstone', PULSE or prefix .. 'pulse'
end

-- Adds the named fields of the state to `s`; a missing field is false.
local function load_into(s, ...)
  local values = redis.call('HMGET', STATE, ...)
  for i, name in ipairs({...}) do s[name] = values[i] end
  return s
end

local function load(...) return load_into({}, ...) end

-- The fields that every append needs. Each further field would cost as much as an append of several events, so the
-- others are loaded only where they are used.
local function load_for_writer()
  return load('status', 'epoch', 'holder', 'log_epoch', 'chunks', 'lead', 'cancel', 'on_disconnect', 'live_until')
end

local function active(s) return s.status == 'queued' or s.status == 'running' end

local function held(s) return s.status == 'running' and tonumber(s.lease_until or 0) > now end

-- `deleted` or `dropped` if the stream was removed before the end of its retention: no worker may heal it.
local function removed()
  local stone = string.match(redis.call('GET', TOMBSTONE) or '', '^%a+')
  return stone ~= 'live' and stone
end

-- Adds to the stream's timeline (shared/broker/timeline.py), which is for operators and limited in size. Entries are
-- `<ms since creation>:<event>:<detail>`, separated by spaces: short, so that Redis keeps the state compactly.
local function note(entry)
  local history, created = unpack(redis.call('HMGET', STATE, 'history', 'created'))
  history = (history or '') .. now - (created or now) .. ':' .. entry .. ' '
  if #history < 2000 then redis.call('HSET', STATE, 'history', history) end
end

-- Epoch of the event `seq` of a log of `epoch` with this lineage (rule E13): the epochs that the log continues, each
-- with its last seq, such as '4:3 8123:10'; '' or false if it continues none.
local function epoch_of(seq, epoch, lineage)
  for earlier, last in string.gmatch(lineage or '', '(%d+):(%d+)') do
    if seq <= tonumber(last) then return tonumber(earlier) end
  end
  return epoch
end

-- Number of events in the log: those in chunks, and until the end those in the tail, which follow them (rule S14).
local function count_events(s)
  return last_in_chunks(s.chunks) + (active(s) and redis.call('XLEN', TAIL) or 0)
end

local function top_of_tail()
  local top = redis.call('XREVRANGE', TAIL, '+', '-', 'COUNT', 1)[1]
  if not top then return 0, 0 end
  local epoch, seq = string.match(top[1], '^(%d+)-(%d+)$')
  return tonumber(epoch), tonumber(seq)
end

-- Number of events in the log that a writer of `epoch` need not send: its own, or those of the lineage that it
-- continues. 0 if the log is of another epoch. A tail with a hole does not count.
local function log_length(s, epoch, lineage)
  local log_epoch, n = tonumber(s.log_epoch), count_events(s)
  local _, top = top_of_tail()
  if top ~= n then n = last_in_chunks(s.chunks) end
  if log_epoch == epoch then return n end
  local continued, last = string.match(lineage or '', '(%d+):(%d+)$')
  return log_epoch == tonumber(continued) and n == tonumber(last) and n or 0
end

-- True while a live reader is connected; a status poll does not count.
local function has_live_reader(s) return now < tonumber(s.live_until) end

local function is_watched(s)
  return has_live_reader(s) or now < tonumber(redis.call('HGET', STATE, 'polled_until'))
end

-- True if Redis was away, frozen, emptied or replaced within the last `ms`: the sweep's pulse has stopped, or the
-- outage it recorded is recent (rule E7). INFO is costly; `check_run_id` only where certainty is needed.
local function is_recovering(ms, check_run_id)
  local at, outage, run_id = unpack(redis.call('HMGET', PULSE, 'at', 'trouble', 'run_id'))
  if not at or now - at > 2000 or (outage and now < outage + ms) then return true end
  return check_run_id and run_id ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end

-- Reason for the writer to stop; '' if it should go on. After an outage every gateway gets time to report its readers.
local function stop_signal(s)
  if s.cancel then return s.cancel end
  if s.on_disconnect ~= 'cancel' or has_live_reader(s) then return '' end
  load_into(s, 'polled_until', 'created', 'grace_ms')
  local unwatched_since = math.max(tonumber(s.live_until), tonumber(s.polled_until), tonumber(s.created))
  return now > unwatched_since + s.grace_ms and not is_recovering(5000) and 'abandoned' or ''
end

-- Reply to a writer: code, last seq in the log, stop signal, 1 if watched, epoch of the state.
local function reply(code, n, s)
  return {code, n, stop_signal(s), is_watched(s) and 1 or 0, tonumber(s.epoch)}
end

-- Adds to a reply what the desk counts: the bytes of the stream, and until when.
local function with_bytes(answer, bytes, expires)
  answer[#answer + 1] = bytes
  answer[#answer + 1] = tonumber(expires)
  return answer
end

-- The fence: the reply for a caller that may not write as (epoch, holder); nil if it may.
local function refuse(s, epoch, holder)
  if not s.status then
    local stone = removed()
    if stone then return {'CLOSED', 0, stone, 0, 0} end
    return {'MISSING', 0, '', 0, 0}
  end
  local current = tonumber(s.epoch)
  if not active(s) then
    return {'CLOSED', count_events(s), redis.call('HGET', STATE, 'reason') or '', 0, current}
  end
  if current > epoch or (current == epoch and s.holder ~= holder) then return reply('SUPERSEDED', 0, s) end
  if current < epoch then return reply('BEHIND', 0, s) end
end

-- Makes the log one of `epoch`, of which the log has the first `n` events. The first write of an epoch empties the log,
-- unless it continues the log.
local function begin_log(s, epoch, n, lineage)
  if n == 0 then
    redis.call('DEL', LOG, TAIL)
    redis.call('HDEL', STATE, 'chunks')
    redis.call('HSET', STATE, 'lead', 0)
  elseif redis.call('XLEN', TAIL) ~= n - last_in_chunks(s.chunks) then
    redis.call('DEL', TAIL) -- it has a hole
  end
  if tonumber(s.log_epoch) ~= epoch or n == 0 then
    redis.call('HSET', STATE, 'log_epoch', epoch)
    if lineage == '' then redis.call('HDEL', STATE, 'lineage') else redis.call('HSET', STATE, 'lineage', lineage) end
  end
end

-- Adds the chunks ARGV[first] .. ARGV[last] to the log. `ends`: the last seq in each of all chunks.
local function push_chunks(first, last, ends)
  for from = first, last, 4000 do
    redis.call('RPUSH', LOG, unpack(ARGV, from, math.min(from + 3999, last)))
  end
  if ends ~= '' then redis.call('HSET', STATE, 'chunks', ends) end
end

-- Adds the events first .. last of `epoch` to the tail. Event q is ARGV[base + q].
local function write_tail(epoch, first, last, base, lineage)
  for q = first, last do
    redis.call('XADD', TAIL, epoch_of(q, epoch, lineage) .. '-' .. q, 'e', ARGV[base + q])
  end
  -- Continued events (rule E13) have other ids, so that gateways read them.
  local told = epoch_of(first, epoch, lineage) == epoch and last or first - 1
  notify_gateways(CHOSEN, redis.call('HGET', STATE, 'gateways'), epoch, first, told, base)
end

-- True if all pieces of a request of this size are stored; a request within the state's fields has none.
local function has_pieces(request_bytes)
  local left, piece = tonumber(request_bytes or 0), 0
  while left > 0 do
    local bytes = redis.call('HSTRLEN', REQUEST, piece)
    if bytes == 0 then return false end
    left, piece = left - bytes, piece + 1
  end
  return left == 0
end

-- The value of one of `fields` (field, value, …); nil if it is not there.
local function value_of(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

-- Sets the expiry of all the stream's keys to the same instant. The tombstone outlives them, and the index lives as
-- long as its longest-lived stream.
local function keep_until(at, tombstone_ms)
  redis.call('HSET', STATE, 'expires', at)
  for _, key in ipairs({STATE, LOG, TAIL, READERS, REQUEST, IDEMPOTENCY}) do redis.call('PEXPIREAT', key, at) end
  redis.call('PEXPIREAT', TOMBSTONE, at + tombstone_ms)
  live_until(INDEX, at)
end

-- Lets the keys of a stream that has ended live until then. The tail has an end of its own.
local function keep_ended_until(at)
  for _, key in ipairs({STATE, LOG, READERS, REQUEST, IDEMPOTENCY}) do redis.call('PEXPIREAT', key, at) end
  live_until(INDEX, at)
end

-- Notifies the worker that holds the stream. The state carries the same, so a lost message does no harm.
local function notify_holder(s, message)
  if s.holder then
    redis.call('SPUBLISH', 'hr:worker:' .. string.match(s.holder, '^[^.]*'), message .. ' ' .. ID)
  end
end
