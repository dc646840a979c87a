#!lua flags=allow-oom
-- Confirms a stream of a chat, or removes it if it was refused.
-- KEYS: 1 chat, 2 members (see join_chat.lua)
-- ARGV: 1 stream_id, 2 is_created (1 or 0)
-- Replies 1, or 0 if it is not of the chat any more: it was not confirmed in time, or the chat was deleted.

local CHAT, MEMBERS = unpack(KEYS, 1, 2)
local stream_id, is_created = unpack(ARGV, 1, 2)
need_rights('DEL HDEL HMGET HSET ZRANGE ZREM ZSCORE', {MEMBERS})
local latest, pending, pending_before = unpack(redis.call('HMGET', CHAT, 'stream', 'pending', 'pending_before'))
if is_created == '1' and not redis.call('ZSCORE', MEMBERS, stream_id) then return 0 end
if pending == stream_id then redis.call('HDEL', CHAT, 'pending', 'pending_until') end
if stream_id == pending or stream_id == pending_before then redis.call('HDEL', CHAT, 'pending_before') end
if is_created == '1' then return 1 end
redis.call('ZREM', MEMBERS, stream_id)
if latest == stream_id then
  local before = redis.call('ZRANGE', MEMBERS, -1, -1)[1]
  if before then redis.call('HSET', CHAT, 'stream', before) else redis.call('DEL', CHAT) end
  -- Nobody has confirmed that one: the next request of the chat finds out whether it exists.
  if before and before == pending_before then redis.call('HSET', CHAT, 'pending', before, 'pending_until', now) end
end
return 1
