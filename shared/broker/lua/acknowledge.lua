#!lua flags=allow-oom
-- Records a gateway's readers of some streams of one route: the reader lease, and the cursor of the leading one.
-- KEYS: 1 state, 2 log, 3 tail, 4 readers (of each stream)
-- ARGV: 1 gateway ('' for a poll of the JSON status), 2 reader_lease_ms (0: the last reader has left),
--       3 epoch, 4 seq (of the leading cursor), 5 window (in events), 6 worker_lease_ms (all this of each stream)
-- Status: unchanged
-- Replies for each stream {status, epoch of the last event in the log, events in the log, what comes before the next
-- event (`queued`, `taken`, `model`, `more` or `worker_lost`; '' if nothing is known)}, or {} if there is no state.

-- `called` is the last epoch whose worker called a provider and heard nothing. Workers of 0.2 do not write it. After an
-- outage a worker may be about to renew a lease that has ended meanwhile; claim.lua leaves it as much time.
local function awaited(s, lease_ms)
  if s.status == 'queued' or s.handed_over then return 'queued' end
  if not held(s) then return is_recovering(lease_ms, true) and '' or 'worker_lost' end
  if s.epoch == s.log_epoch then return 'more' end
  return s.called == s.epoch and 'model' or 'taken'
end

local function acknowledge(i, at)
  choose_stream(i, i + 3)
  local gateway, reader_lease_ms, epoch, seq, window, worker_lease_ms = unpack(ARGV, at, at + 5)
  local s = load('status', 'holder', 'log_epoch', 'lineage', 'lead', 'full', 'gateways', 'chunks', 'lease_until', 'epoch', 'called',
    'handed_over')
  if not s.status then return {} end
  local log_epoch, n = tonumber(s.log_epoch), count_events(s)
  local last_epoch = epoch_of(n, log_epoch, s.lineage)

  local lease_ms = tonumber(reader_lease_ms)
  if gateway ~= '' then
    redis.call('ZREMRANGEBYSCORE', READERS, '-inf', now)
    if lease_ms > 0 then redis.call('ZADD', READERS, now + lease_ms, gateway) else redis.call('ZREM', READERS, gateway) end
    redis.call('PEXPIREAT', READERS, redis.call('PEXPIRETIME', STATE))
  end
  -- The readers of a stream that has ended matter to drop.lua only.
  if not active(s) then return {s.status, last_epoch, n, ''} end

  if gateway == '' then
    -- A poll keeps only an answer alive that no client has streamed: a status page must not keep an abandoned one going.
    if not s.gateways then redis.call('HSET', STATE, 'polled_until', now + lease_ms) end
  else
    local latest = redis.call('ZREVRANGE', READERS, 0, 0, 'WITHSCORES')[2]
    local gateways = table.concat(redis.call('ZRANGE', READERS, 0, -1), ' ')
    redis.call('HSET', STATE, 'live_until', latest or now, 'gateways', gateways)
  end

  -- A client may send a cursor beyond the log; that must not open the window.
  local lead, cursor = tonumber(s.lead), math.min(tonumber(seq), n)
  if epoch_of(cursor, log_epoch, s.lineage) == tonumber(epoch) and cursor > lead then
    lead = cursor
    redis.call('HSET', STATE, 'lead', lead)
  end
  if s.full and (lead + window > n or lease_ms == 0) then
    redis.call('HDEL', STATE, 'full')
    notify_holder(s, 'room')
  end
  return {s.status, last_epoch, n, awaited(s, tonumber(worker_lease_ms))}
end

need_whole_slot()
local replies = {}
for i = 1, #KEYS / 4 do replies[i] = reply_of(acknowledge, 4 * i - 3, 6 * i - 5) end
return replies
