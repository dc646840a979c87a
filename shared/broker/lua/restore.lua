#!lua
-- Heals a Redis that lost the stream, wholly or in part, from the memory of the worker that holds it (rule E3).
-- KEYS: 1-8 stream
-- ARGV: 1 epoch, 2 holder, 3 lease_ms, 4 cap, 5 retention_ms, 6 tombstone_ms, 7 body_hash, 8 reader_lease_ms,
--       9 lineage (as for append), 10 field_items (number of items in fields), 11 fields… (field, value, …),
--       events… (of the epoch and its lineage, from seq 1)
-- Status: none, queued, running → running
-- Writes only if the state is missing, or is active under a lower epoch; otherwise it replies as append does. Replies
-- UNSTORED if pieces of the request are missing (see store.lua).

local epoch, holder, lease_ms, cap, retention_ms, tombstone_ms, body_hash, reader_lease_ms, lineage,
  field_items = unpack(ARGV, 1, 10)
epoch = tonumber(epoch)
local s = load_for_writer()
local refusal = refuse(s, epoch, holder)
if refusal and refusal[1] ~= 'MISSING' and refusal[1] ~= 'BEHIND' then return refusal end
if not refusal then return reply('GAP', log_length(s, epoch, lineage), s) end
if not has_pieces(value_of({unpack(ARGV, 11, 10 + field_items)}, 'request_bytes')) then return {'UNSTORED', 0, '', 0, 0} end

need_rights('DEL HDEL HEXISTS HGET HINCRBY HMGET HSET HSTRLEN LLEN LRANGE PEXPIRE PEXPIREAT RPUSH SET XADD XLEN ' ..
  'XREVRANGE XTRIM ZADD ZREM ZREMRANGEBYSCORE', {IDEMPOTENCY or STATE, 'hr:waiting', 'hr:account:any', 'hr:lane:any'})
local before_events = 10 + field_items
leave_lanes()
redis.call('HSET', STATE, 'live_until', 0, 'polled_until', now + reader_lease_ms, 'log_epoch', 0, 'lead', 0,
  unpack(ARGV, 11, before_events))
redis.call('HSET', STATE, 'status', 'running', 'epoch', epoch, 'holder', holder, 'lease_until', now + lease_ms,
  'expires', now + retention_ms)
redis.call('ZADD', INDEX, now + lease_ms, ID)
if IDEMPOTENCY then redis.call('SET', IDEMPOTENCY, ID .. ' ' .. body_hash) end
redis.call('SET', TOMBSTONE, 'live ' .. redis.call('HGET', STATE, 'principal'))
load_into(s, 'account', 'lane', 'reserved', 'sources')
if s.reserved then hold_account_slot(s.account, tonumber(retention_ms)) end
hold_lanes(s.lane, now + lease_ms)
redis.call('ZREM', 'hr:waiting', ID) -- a Redis that lost data may still count it as waiting
redis.call('ZREM', 'hr:account:' .. (s.account or '') .. ':waiting', ID)
s = load_for_writer()
-- The tail may have events that a continued epoch wrote behind the point of takeover (rule E13).
if lineage ~= '' then redis.call('DEL', TAIL) end
write(s, epoch, 0, #ARGV - before_events, before_events, tonumber(cap), lineage)
keep_until(now + retention_ms, tonumber(tombstone_ms))
load_into(s, 'account', 'sources')
count_stored(s.account, now + retention_ms)
keep_sources(s.account, s.sources or nil, now + retention_ms)
return reply('OK', #ARGV - before_events, s)
