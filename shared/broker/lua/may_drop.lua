#!lua flags=allow-oom
-- Asks whether the answer of a stream may be dropped, and for a minute lets no stream be made from it.
-- KEYS: 1 of (see _desk.lua), 2 stored, 3 sources (see _storage.lua),
--       4 dropping (zset: id → end of the time in which no stream may be made from it)
-- ARGV: 1 stream_id
-- Replies 1, or 0 if a stream that waits or runs was made from it.

local stream_id = ARGV[1]
local STORED, SOURCES, DROPPING = unpack(KEYS, 2, 4)
if is_source({stored = STORED, sources = SOURCES}) then return 0 end
need_rights('PEXPIRE ZADD ZREMRANGEBYSCORE', {DROPPING})
redis.call('ZADD', DROPPING, now + 60000, ID)
redis.call('ZREMRANGEBYSCORE', DROPPING, '-inf', now)
redis.call('PEXPIRE', DROPPING, 60000)
return 1
