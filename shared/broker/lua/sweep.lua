#!lua flags=allow-oom
-- A turn of the sweep over some buckets: updates their pulses and returns their streams that are due.
-- KEYS: 1 index (zset: id → next look, ms), 2 pulse (hash: at, run_id, trouble) (of a bucket; those of others follow)
-- ARGV: 1 lease_ms (after which to look again), 2 most_ids (of each bucket)
-- Replies {now in ms, id, …}.
-- A pulse that stopped for two seconds, or came from another Redis, means an outage: workers could not renew their
-- leases. The field `trouble` has its time; claim and read check it (is_recovering). All pulses of a call are on one
-- server and written together, so the first is examined for all. A pulse lives for a day.

local lease_ms, most_ids = unpack(ARGV, 1, 2)
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local PULSE = KEYS[2]
local at, before = unpack(redis.call('HMGET', PULSE, 'at', 'run_id'))
local was_away = not at or now - at > 2000 or before ~= run_id
local is_new_hour = not at or math.floor(at / 3600000) < math.floor(now / 3600000)
local reply, stamp = {now}, string.format('%.0f', now) -- as text, since Redis formats numbers slowly
local indexes, call = {}, redis.call
-- The time is of this server alone: it is older in the file and on replicas, so that a server that starts from there
-- counts as away. It would be half of all that an idle system writes to the file.
if not (was_away or is_new_hour) then redis.set_repl(redis.REPL_NONE) end
for bucket = 1, #KEYS, 2 do
  local pulse = KEYS[bucket + 1]
  indexes[#indexes + 1] = KEYS[bucket]
  local is_new = call('HSET', pulse, 'at', stamp) > 0
  if is_new or was_away then call('HSET', pulse, 'run_id', run_id, 'trouble', stamp) end
  if is_new or is_new_hour then call('PEXPIRE', pulse, 86400000) end
end
redis.set_repl(redis.REPL_ALL)
if call('EXISTS', unpack(indexes)) == 0 then return reply end -- an idle system has none
for _, index in ipairs(indexes) do
  for _, id in ipairs(call('ZRANGEBYSCORE', index, '-inf', stamp, 'LIMIT', 0, most_ids)) do
    call('ZADD', index, now + lease_ms, id)
    reply[#reply + 1] = id
  end
end
return reply
