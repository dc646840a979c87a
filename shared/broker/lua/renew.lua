#!lua flags=allow-oom
-- Extends a worker's leases of some streams of one route, and with each the life of the stream's keys.
-- KEYS: 1-10 stream (of each stream)
-- ARGV: 1 epoch, 2 holder, 3 lease_ms, 4 retention_ms, 5 tombstone_ms (all this of each stream)
-- Status: running → running
-- Replies for each stream as append does, OK n if the lease was extended, and then bytes and expiry of the stream, ms.

local function renew(i, at)
  choose_stream(i, i + 9)
  local epoch, holder, lease_ms, retention_ms, tombstone_ms = unpack(ARGV, at, at + 4)
  epoch = tonumber(epoch)
  local s = load_for_writer()
  local refusal = refuse(s, epoch, holder)
  if refusal then return refusal end
  redis.call('HSET', STATE, 'lease_until', now + lease_ms)
  redis.call('ZADD', INDEX, now + lease_ms, ID)
  load_into(s, 'expires')
  -- keep_until costs six commands, so it runs at most once a minute and not at every renewal.
  if tonumber(s.expires) < now + retention_ms - math.min(60000, retention_ms / 2) then
    keep_until(now + retention_ms, tonumber(tombstone_ms))
    s.expires = now + retention_ms
  end
  return with_bytes(reply('OK', log_length(s, epoch), s), stored_bytes(), s.expires)
end

need_whole_slot()
local replies = {}
for i = 1, #KEYS / 10 do replies[i] = reply_of(renew, 10 * i - 9, 5 * i - 4) end
return replies
