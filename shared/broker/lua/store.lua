#!lua
-- Stores a piece of a large request, before `create` or `restore` makes the stream: Redis would serve no other client
-- during a call with the whole request. A stream that is not made leaves its pieces for a minute.
-- KEYS: 1-10 stream
-- ARGV: 1 piece_number (from 0), 2 kept_ms, 3 piece
-- Status: unchanged
-- Replies STORED, as append does.

local piece_number, kept_ms, piece = unpack(ARGV, 1, 3)
need_rights('HSET PEXPIREAT', {REQUEST})
redis.call('HSET', REQUEST, piece_number, piece)
live_until(REQUEST, now + kept_ms)
return {'STORED', 0, '', 0, 0}
