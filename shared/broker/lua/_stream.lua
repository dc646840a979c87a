-- What every script of one stream begins with; scripts.py puts it after the script's own first line.
-- KEYS: 1 state (hash)  2 log (list)  3 tail (stream)  4 readers (zset)  5 index (zset)  6 tombstone (string)
--       7 pulse (hash)  8 idempotency entry (string), where the stream has one; else missing, or 1 once more
-- Times are milliseconds of Redis' own clock. A script checks everything before its first write.

local STATE, LOG, TAIL, READERS, INDEX, TOMBSTONE, PULSE, IDEMPOTENCY = unpack(KEYS)
if IDEMPOTENCY == STATE then IDEMPOTENCY = nil end
local ID = string.match(STATE, ':(%x+):state$')
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Adds the named fields of the state to `s`; a missing one is false.
local function load_into(s, ...)
  local values = redis.call('HMGET', STATE, ...)
  for i, name in ipairs({...}) do s[name] = values[i] end
  return s
end

local function load(...) return load_into({}, ...) end

-- What every append needs. Each field more costs as much as an append of several events would: the rest is loaded
-- where it is asked for.
local function load_for_writer()
  return load('status', 'epoch', 'holder', 'log_epoch', 'lead', 'cancel', 'on_disconnect', 'live_until')
end

local function active(s) return s.status == 'queued' or s.status == 'running' end

local function held(s) return s.status == 'running' and tonumber(s.lease_until or 0) > now end

local function deleted()
  local stone = redis.call('GET', TOMBSTONE)
  return stone and string.sub(stone, 1, 7) == 'deleted'
end

-- What happened to the stream, for its timeline (shared/broker/timeline.py): `<ms>:<what>:<detail>`, with a space
-- between. Nobody but operators reads it, and it ends somewhere.
local function note(what)
  local told = redis.call('HGET', STATE, 'history') or ''
  if #told < 2000 then redis.call('HSET', STATE, 'history', told .. now .. ':' .. what .. ' ') end
end

-- Events of `epoch` in the log; the log of another epoch does not count.
local function log_length(s, epoch)
  return tonumber(s.log_epoch) == epoch and redis.call('LLEN', LOG) or 0
end

-- Whether a live reader is there; a status poll is none.
local function live(s) return now < tonumber(s.live_until) end

local function watched(s) return live(s) or now < tonumber(redis.call('HGET', STATE, 'polled_until')) end

-- Whether this Redis was away, frozen, emptied or replaced within the last `ms`: the sweep's pulse then stopped, or
-- its word of trouble is young (design §4 rule 7). The run id is asked for only by who needs to be sure.
local function in_trouble(ms, ask_run_id)
  local at, trouble, run_id = unpack(redis.call('HMGET', PULSE, 'at', 'trouble', 'run_id'))
  if not at or now - at > 2000 or (trouble and now < trouble + ms) then return true end
  return ask_run_id and run_id ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end

-- Why the writer should stop: '' where it should not. After a trouble every gateway gets time to say who reads.
local function signal(s)
  if s.cancel then return s.cancel end
  if s.on_disconnect ~= 'cancel' or live(s) then return '' end
  load_into(s, 'polled_until', 'created', 'grace_ms')
  local unwatched_since = math.max(tonumber(s.live_until), tonumber(s.polled_until), tonumber(s.created))
  return now > unwatched_since + s.grace_ms and not in_trouble(5000) and 'abandoned' or ''
end

-- Answer to a writer: code, last seq in the log, stop signal, watched, epoch of the state.
local function answer(code, n, s)
  return {code, n, signal(s), watched(s) and 1 or 0, tonumber(s.epoch)}
end

-- The answer to whoever may not write as (epoch, holder), else nil. This is the fence.
local function refuse(s, epoch, holder)
  if not s.status then
    if deleted() then return {'CLOSED', 0, 'deleted', 0, 0} end
    return {'MISSING', 0, '', 0, 0}
  end
  local current = tonumber(s.epoch)
  if not active(s) then return {'CLOSED', redis.call('LLEN', LOG), redis.call('HGET', STATE, 'reason') or '', 0, current} end
  if current > epoch or (current == epoch and s.holder ~= holder) then return answer('SUPERSEDED', 0, s) end
  if current < epoch then return answer('BEHIND', 0, s) end
end

-- Tells those who read the stream that its tail has grown.
local function tell_gateways()
  for gateway in string.gmatch(redis.call('HGET', STATE, 'gateways') or '', '%S+') do
    redis.call('PUBLISH', 'hr:gateway:' .. gateway, ID)
  end
end

local function top_of_tail()
  local top = redis.call('XREVRANGE', TAIL, '+', '-', 'COUNT', 1)[1]
  if not top then return 0, 0 end
  local epoch, seq = string.match(top[1], '^(%d+)-(%d+)$')
  return tonumber(epoch), tonumber(seq)
end

-- Writes the events n+1 .. upto of `epoch` to log and tail. Event q is ARGV[base + q].
-- The first write of an epoch empties the log; the tail is added to only above its top.
local function write(s, epoch, n, upto, base, cap)
  if tonumber(s.log_epoch) ~= epoch then
    redis.call('DEL', LOG)
    redis.call('HSET', STATE, 'log_epoch', epoch, 'lead', 0)
  end
  if upto <= n then return end
  for from = n + 1, upto, 4000 do
    redis.call('RPUSH', LOG, unpack(ARGV, base + from, base + math.min(from + 3999, upto)))
  end
  local top_epoch, top_seq = top_of_tail()
  for q = math.max(n + 1, upto - cap + 1), upto do
    if epoch > top_epoch or (epoch == top_epoch and q > top_seq) then
      redis.call('XADD', TAIL, epoch .. '-' .. q, 'e', ARGV[base + q])
    end
  end
  tell_gateways()
  -- To trim one entry costs more than to add one: so it goes beyond what it must.
  if redis.call('XLEN', TAIL) > cap then
    redis.call('XTRIM', TAIL, 'MAXLEN', '=', cap - math.min(64, math.floor(cap / 4)))
  end
  if n == 0 then
    local expires = redis.call('HGET', STATE, 'expires')
    redis.call('PEXPIREAT', LOG, expires)
    redis.call('PEXPIREAT', TAIL, expires)
  end
end

-- All keys of the stream end at the same instant; the tombstone outlives them; the index lives as long as its longest.
local function keep_until(at, tombstone_ms)
  redis.call('HSET', STATE, 'expires', at)
  for _, key in ipairs({STATE, LOG, TAIL, READERS, IDEMPOTENCY}) do redis.call('PEXPIREAT', key, at) end
  redis.call('PEXPIREAT', TOMBSTONE, at + tombstone_ms)
  redis.call('PEXPIREAT', INDEX, at, 'NX')
  redis.call('PEXPIREAT', INDEX, at, 'GT')
end

-- Tells the worker that holds the stream; the state says the same to one that does not hear it.
local function tell_holder(s, message)
  if s.holder then
    redis.call('PUBLISH', 'hr:worker:' .. string.match(s.holder, '^[^.]*'), message .. ' ' .. ID)
  end
end
