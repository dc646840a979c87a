#!lua
-- Heals a Redis that lost the stream, wholly or in part, from the memory of the worker that holds it (rule E3).
-- KEYS: 1-10 stream
-- ARGV: 1 epoch, 2 holder, 3 lease_ms, 4 retention_ms, 5 tombstone_ms, 6 body_hash, 7 reader_lease_ms,
--       8 lineage (as for append), 9 field_items (number of items in fields), 10 chunk_ends (as for finish; '': none),
--       11 fields… (field, value, …), chunks… (of the first events of the epoch and its lineage), events… (the others)
-- Status: none, queued, running → running
-- Writes only if the state is missing, or is active under a lower epoch, and replies as renew does; otherwise as append
-- does. Replies UNSTORED if pieces of the request are missing (see store.lua). The desk counts the stream with `hold`.

local epoch, holder, lease_ms, retention_ms, tombstone_ms, body_hash, reader_lease_ms, lineage, field_items,
  chunk_ends = unpack(ARGV, 1, 10)
epoch = tonumber(epoch)
local s = load_for_writer()
local refusal = refuse(s, epoch, holder)
if refusal and refusal[1] ~= 'MISSING' and refusal[1] ~= 'BEHIND' then return refusal end
if not refusal then return reply('GAP', log_length(s, epoch, lineage), s) end
if not has_pieces(value_of({unpack(ARGV, 11, 10 + field_items)}, 'request_bytes')) then return {'UNSTORED', 0, '', 0, 0} end

need_rights('DEL HDEL HGET HMGET HSET HSTRLEN LRANGE PEXPIREAT RPUSH SET XADD XLEN XRANGE XREVRANGE ZADD',
  {IDEMPOTENCY or STATE})
local before_chunks = 10 + field_items
local _, chunk_count = string.gsub(chunk_ends, '%d+', '')
local before_events = before_chunks + chunk_count
local before_tail = last_in_chunks(chunk_ends ~= '' and chunk_ends)
local n = before_tail + #ARGV - before_events
redis.call('HSET', STATE, 'live_until', 0, 'polled_until', now + reader_lease_ms, 'log_epoch', 0, 'lead', 0,
  unpack(ARGV, 11, before_chunks))
redis.call('HSET', STATE, 'status', 'running', 'epoch', epoch, 'holder', holder, 'lease_until', now + lease_ms,
  'expires', now + retention_ms)
redis.call('ZADD', INDEX, now + lease_ms, ID)
if IDEMPOTENCY then redis.call('SET', IDEMPOTENCY, ID .. ' ' .. body_hash) end
redis.call('SET', TOMBSTONE, 'live ' .. redis.call('HGET', STATE, 'principal'))
s = load_for_writer()
begin_log(s, epoch, 0, lineage)
push_chunks(before_chunks + 1, before_events, chunk_ends)
write_tail(epoch, before_tail + 1, n, before_events - before_tail, lineage)
keep_until(now + retention_ms, tonumber(tombstone_ms))
return with_bytes(reply('OK', n, s), stored_bytes(), now + retention_ms)
