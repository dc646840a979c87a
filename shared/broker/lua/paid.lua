#!lua flags=allow-oom
-- Takes a stream out of the index that has ended or is gone, once the desk has settled it. A stream whose webhook is not
-- delivered yet stays there.
-- KEYS: 1-10 stream
-- ARGV: 1 owed (the field of the state that was settled; '' for a stream that is gone)
-- Status: unchanged
-- Replies 1, or 0 if the stream waits or runs (again), or the desk is owed another ending.

local owed = ARGV[1]
local s = load('status', 'owed', 'undelivered')
if s.status and (active(s) or (s.owed or owed) ~= owed) then return 0 end
need_rights('HDEL ZREM', {})
if not s.undelivered then redis.call('ZREM', INDEX, ID) end
if s.owed then redis.call('HDEL', STATE, 'owed') end
return 1
