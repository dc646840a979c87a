#!lua flags=allow-oom
-- Takes a stream out of the index that has ended or is gone, once the desk has settled it. A stream whose webhook is not
-- delivered yet, or that is not in the archive yet, stays there.
-- KEYS: 1-10 stream
-- ARGV: 1 owed (the field of the state that was settled; '' for a stream that is gone), 2 archive_ms (as for finish)
-- Status: unchanged
-- Replies 1, or 0 if the stream waits or runs (again), or the desk is owed another ending.

local owed, archive_ms = unpack(ARGV, 1, 2)
local s = load('status', 'owed', 'undelivered', 'unarchived')
if s.status and (active(s) or (s.owed or owed) ~= owed) then return 0 end
need_rights('HDEL PEXPIREAT ZADD ZREM', {})
if s.unarchived then
  -- While the archive is away, all that has ended waits for it: the longer, the rarer the looks, and with each of them it
  -- lives on. The queue of the archive has the stream meanwhile; this is for a queue that was lost.
  local waiting_ms = now - s.unarchived
  if not s.undelivered then redis.call('ZADD', INDEX, now + math.min(math.max(30000, waiting_ms), 3600000), ID) end
  if waiting_ms > 60000 then keep_ended_until(now + archive_ms) end
elseif not s.undelivered then
  redis.call('ZREM', INDEX, ID)
end
if s.owed then redis.call('HDEL', STATE, 'owed') end
return 1
