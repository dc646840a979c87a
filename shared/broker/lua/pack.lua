#!lua
-- Moves the first events of the tail into the log, as compressed chunks, so that the tail has room (rule S14).
-- KEYS: 1-10 stream
-- ARGV: 1 epoch, 2 holder, 3 lineage (as for append), 4 before (last seq in the chunks that the log has),
--       5 chunk_ends (last seq in each of these chunks), 6 chunks…
-- Status: unchanged
-- Replies as append does, up to GAP n; then PACKED n (last seq in the log's chunks). Chunks that do not follow those of
-- the log are not taken.

local epoch, holder, lineage, before, chunk_ends = unpack(ARGV, 1, 5)
epoch, before = tonumber(epoch), tonumber(before)
local s = load_for_writer()
local refusal = refuse(s, epoch, holder)
if refusal then return refusal end
local n, last = log_length(s, epoch, lineage), last_in_chunks(chunk_ends)
if last > n then return reply('GAP', n, s) end
if before ~= last_in_chunks(s.chunks) or last <= before then return reply('PACKED', last_in_chunks(s.chunks), s) end

need_rights('HGET HMGET HSET LRANGE PEXPIREAT RPUSH XLEN XRANGE XREVRANGE XTRIM', {})
load_into(s, 'lineage')
local bytes = log_bytes() - event_bytes(s, before + 1, last - before)
for i = 6, #ARGV do bytes = bytes + #ARGV[i] end
push_chunks(6, #ARGV, s.chunks and s.chunks .. ' ' .. chunk_ends or chunk_ends)
redis.call('PEXPIREAT', LOG, redis.call('HGET', STATE, 'expires'))
redis.call('XTRIM', TAIL, 'MAXLEN', '=', n - last)
remember_count(s.log_epoch, n, bytes)
return reply('PACKED', last, s)
