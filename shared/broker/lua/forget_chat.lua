#!lua flags=allow-oom
-- Forgets streams of a chat that were deleted, and the chat with the last of them.
-- KEYS: 1 chat, 2 members (see join_chat.lua)
-- ARGV: 1 stream_ids (separated by spaces)
-- Replies 1 if the chat is forgotten, or 0 if further streams have joined it.

local CHAT, MEMBERS = unpack(KEYS, 1, 2)
local stream_ids = ARGV[1]
need_rights('DEL ZCARD ZREM', {MEMBERS})
for stream_id in string.gmatch(stream_ids, '%x+') do redis.call('ZREM', MEMBERS, stream_id) end
if redis.call('ZCARD', MEMBERS) > 0 then return 0 end
redis.call('DEL', CHAT, MEMBERS)
return 1
