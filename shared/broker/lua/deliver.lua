#!lua flags=allow-oom
-- Notes what became of a stream's webhook.
-- KEYS: 1-10 stream, 11 dead_letters (zset: id → when its delivery was given up)
-- ARGV: 1 outcome (delivered; failed: it is sent again; given_up; wanted: it is sent again, although it was delivered or
--       given up), 2 undelivered (as the caller has read it; '' for wanted), 3 detail (of a failure),
--       4 next_look_ms (after a failure, until the sweep looks whether it was sent again), 5 retention_ms,
--       6 delivery_ms, 7 archive_ms (as for finish)
-- Status: unchanged
-- Replies 1, or 0 if that is not what the stream waits for: it has no webhook, runs, is gone, or was delivered.

local outcome, undelivered, detail, next_look_ms, retention_ms, delivery_ms, archive_ms = unpack(ARGV, 1, 7)
local DEAD_LETTERS = KEYS[11]
local s = load('status', 'webhook', 'undelivered', 'unarchived', 'owed', 'ended')
if not s.status or active(s) or not s.webhook then return 0 end
if outcome ~= 'wanted' and s.undelivered ~= undelivered then return 0 end
need_rights('HDEL HGET HINCRBY HMGET HSET PEXPIRE PEXPIREAT PTTL ZADD ZREM', {DEAD_LETTERS})

-- Keeps all of the stream until then, or longer for the archive.
local function keep_answer_until(at) keep_ended_until(math.max(at, s.unarchived and now + archive_ms or 0)) end

if outcome == 'failed' then
  redis.call('HINCRBY', STATE, 'delivery_failures', 1)
  redis.call('HSET', STATE, 'delivery_error', detail)
  redis.call('ZADD', INDEX, now + next_look_ms, ID)
  return 1
end
if outcome == 'wanted' then
  redis.call('HSET', STATE, 'undelivered', now)
  redis.call('HDEL', STATE, 'delivery_failures', 'delivery_error')
  redis.call('ZREM', DEAD_LETTERS, ID)
  redis.call('ZADD', INDEX, now, ID)
  keep_answer_until(now + math.max(retention_ms, delivery_ms))
  return 1
end
redis.call('HDEL', STATE, 'undelivered')
if not (s.owed or s.unarchived) then redis.call('ZREM', INDEX, ID) end
note('webhook:' .. outcome)
if outcome == 'delivered' then
  redis.call('HDEL', STATE, 'delivery_failures', 'delivery_error')
  keep_answer_until(math.max(now, s.ended + retention_ms))
  return 1
end
redis.call('HINCRBY', STATE, 'delivery_failures', 1)
redis.call('HSET', STATE, 'delivery_error', detail)
redis.call('ZADD', DEAD_LETTERS, now, ID)
live_until(DEAD_LETTERS, now + retention_ms)
keep_answer_until(now + retention_ms)
return 1
