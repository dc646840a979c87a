#!lua flags=allow-oom
-- The last append: the remaining events, `done` among them, and the terminal state in one step. It ignores the window.
-- KEYS: 1-8 stream
-- ARGV: 1 epoch, 2 holder, 3 first_seq (seq of the first event given), 4 cap, 5 retention_ms, 6 tombstone_ms,
--       7 status, 8 only_if_unwatched (1 or 0), 9 tokens (used), 10 lineage (as for append),
--       11 field_items (number of items in fields), 12 fields… (field, value, …), events…
-- Status: running → completed, cancelled, failed
-- Replies as append does, or WATCHED if `only_if_unwatched` and a reader came; nothing is written then.

local epoch, holder, first_seq, cap, retention_ms, tombstone_ms, status, only_if_unwatched, tokens, lineage,
  field_items = unpack(ARGV, 1, 11)
epoch, first_seq = tonumber(epoch), tonumber(first_seq)
local s = load_for_writer()
local refusal = refuse(s, epoch, holder)
if refusal then return refusal end
local n = log_length(s, epoch, lineage)
if first_seq > n + 1 then return reply('GAP', n, s) end
if only_if_unwatched == '1' and stop_signal(s) == '' then return reply('WATCHED', n, s) end

need_rights('DEL HDEL HEXISTS HGET HINCRBY HMGET HSET HSTRLEN LLEN LRANGE PEXPIRE PEXPIREAT RPUSH XADD ' ..
  'XLEN XREVRANGE XTRIM UNLINK ZADD ZREM ZREMRANGEBYRANK ZREMRANGEBYSCORE',
  {'hr:queue', 'arq:job:' .. ID, 'hr:ended', 'hr:account:any', 'hr:endings:any', 'hr:lane:any'})
local before_events = 11 + field_items
local last = first_seq + #ARGV - before_events - 1
-- Without output there are only the events start, error and done.
if s.log_epoch == '0' and last > (status == 'failed' and 3 or 2) then note('output:') end
write(s, epoch, n, last, before_events + 1 - first_seq, tonumber(cap), lineage)
redis.call('HSET', STATE, 'status', status, 'ended', now, unpack(ARGV, 12, before_events))
settle(tonumber(tokens))
leave_lanes(tonumber(tokens))
load_into(s, 'follow_up', 'account', 'sources')
redis.call('HDEL', STATE, 'holder', 'lease_until', 'full', 'provider_cursor')
-- A stream that a later request may continue keeps its request.
if not s.follow_up then
  redis.call('HDEL', STATE, 'request', 'request_bytes')
  redis.call('UNLINK', request_key())
end
for _, key in ipairs({INDEX, 'hr:queue'}) do redis.call('ZREM', key, ID) end
redis.call('DEL', 'arq:job:' .. ID)
keep_until(now + retention_ms, tonumber(tombstone_ms))
forget_sources(s.account, s.sources or nil)
redis.call('HDEL', STATE, 'sources')
count_stored(s.account, now + retention_ms)
count_ending(status, tonumber(tokens), tonumber(retention_ms))
-- Live readers have a minute for the rest of the tail; then only the log remains, and half the memory is free again.
redis.call('PEXPIREAT', TAIL, now + math.min(60000, retention_ms))
return reply('OK', last, s)
