#!lua flags=allow-oom
-- A gateway's word on its readers: that they are there (the reader lease), and how far the leading one is.
-- ARGV: 1 gateway id, or '' for a read of the JSON status, 2 reader lease ms (0: the last reader has left),
--       3 epoch, 4 seq of the leading cursor, 5 window in events
-- Answers {status, epoch of the log, events in the log} or {} where there is no state.

local s = load('status', 'holder', 'log_epoch', 'lead', 'full')
if not s.status then return {} end
local log_epoch, n = tonumber(s.log_epoch), redis.call('LLEN', LOG)
if not active(s) then return {s.status, log_epoch, n} end

local lease = tonumber(ARGV[2])
if ARGV[1] == '' then
  redis.call('HSET', STATE, 'polled_until', now + lease)
else
  redis.call('ZREMRANGEBYSCORE', READERS, '-inf', now)
  if lease > 0 then redis.call('ZADD', READERS, now + lease, ARGV[1]) else redis.call('ZREM', READERS, ARGV[1]) end
  local latest = redis.call('ZREVRANGE', READERS, 0, 0, 'WITHSCORES')[2]
  redis.call('HSET', STATE, 'live_until', latest or now, 'gateways', table.concat(redis.call('ZRANGE', READERS, 0, -1), ' '))
  redis.call('PEXPIREAT', READERS, redis.call('PEXPIRETIME', STATE))
end

-- A client may claim to have read what was never written; that must not open the window.
local lead, cursor = tonumber(s.lead), math.min(tonumber(ARGV[4]), n)
if tonumber(ARGV[3]) == log_epoch and cursor > lead then
  lead = cursor
  redis.call('HSET', STATE, 'lead', lead)
end
if s.full and (lead + ARGV[5] > n or lease == 0) then
  redis.call('HDEL', STATE, 'full')
  tell_holder(s, 'room')
end
return {s.status, log_epoch, n}
