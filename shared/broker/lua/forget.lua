#!lua flags=allow-oom
-- Undoes `begin` for a stream that was refused: nothing of it stays.
-- KEYS: 1-10 stream
-- ARGV: 1 principal (of the stream; it must be the same)
-- Status: queued → none
-- Replies 1, or 0 if the stream is not as `begin` left it.

local principal = ARGV[1]
local s = load('status', 'epoch', 'principal')
if s.status ~= 'queued' or s.epoch ~= '0' or s.principal ~= principal then return 0 end
need_rights('DEL UNLINK ZREM', {})
redis.call('UNLINK', REQUEST)
redis.call('DEL', STATE, TOMBSTONE, READERS, IDEMPOTENCY or STATE)
redis.call('ZREM', INDEX, ID)
return 1
