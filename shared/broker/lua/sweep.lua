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
local indexes = {}
for bucket = 1, #KEYS, 2 do indexes[#indexes + 1] = KEYS[bucket] end
local has_streams = redis.call('EXISTS', unpack(indexes)) > 0 -- one look at all, since an idle system has none
for bucket = 1, #KEYS, 2 do
  local index, pulse = unpack(KEYS, bucket, bucket + 1)
  local is_new = redis.call('HSET', pulse, 'at', stamp) > 0
  if is_new or was_away then redis.call('HSET', pulse, 'run_id', run_id, 'trouble', stamp) end
  if is_new or is_new_hour then redis.call('PEXPIRE', pulse, 86400000) end
  local due = has_streams and redis.call('ZRANGEBYSCORE', index, '-inf', stamp, 'LIMIT', 0, most_ids) or {}
  for _, id in ipairs(due) do
    redis.call('ZADD', index, now + lease_ms, id)
    reply[#reply + 1] = id
  end
end
return reply
