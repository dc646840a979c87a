#!lua flags=allow-oom
-- The last append: the remaining events, `done` among them, and the terminal state in one step. It ignores the window.
-- KEYS: 1-10 stream
-- ARGV: 1 epoch, 2 holder, 3 first_seq (seq of the first event given), 4 cap, 5 retention_ms, 6 tombstone_ms,
--       7 status, 8 only_if_unwatched (1 or 0), 9 tokens (used), 10 lineage (as for append),
--       11 field_items (number of items in fields), 12 chunk_ends (as last_in_chunks takes them),
--       13 delivery_ms (for which a stream with a webhook is kept at least, until that is delivered),
--       14 archive_ms (for which a stream is kept at least that is not archived yet),
--       15 cost (of all calls, in nanos; '?': unknown),
--       16 fields… (field, value, …), chunks… (compressed, of the whole log), events…
-- Status: running → completed, cancelled, failed
-- Replies as append does, and then bytes and expiry of the stream, ms; or WATCHED if `only_if_unwatched` and a reader
-- came; nothing is written then. The desk is owed the ending (`owed` in the state: tokens, bytes, cost), and the
-- receiver of a webhook is too (`undelivered`: since when), and so is the archive (`unarchived`). The sweep looks for
-- that in two seconds; if the field `usage_wait_ms` is written, so much later.

-- Fields of the state that matter only until the end.
local OF_RUNNING = {}
for name in string.gmatch([[
  holder lease_until full lead gateways polled_until grace_ms stored_limit expires counted provider_cursor sources
  prompt_characters max_tokens expected_tokens on_worker_lost may_resume body_hash request_id limited lanes
  handed_over accounted usage_wait_ms called
]], '%S+') do OF_RUNNING[name] = true end

local epoch, holder, first_seq, cap, retention_ms, tombstone_ms, status, only_if_unwatched, tokens, lineage,
  field_items, chunk_ends, delivery_ms, archive_ms, cost = unpack(ARGV, 1, 15)
epoch, first_seq = tonumber(epoch), tonumber(first_seq)
local s = load_for_writer()
local refusal = refuse(s, epoch, holder)
if refusal then return refusal end
local n = log_length(s, epoch, lineage)
if first_seq > n + 1 then return reply('GAP', n, s) end
if only_if_unwatched == '1' and stop_signal(s) == '' then return reply('WATCHED', n, s) end

need_rights('DEL HDEL HGET HGETALL HMGET HSET HSTRLEN LRANGE PEXPIRE PEXPIREAT RPUSH XADD XLEN XRANGE XREVRANGE ' ..
  'XTRIM UNLINK ZADD ZREMRANGEBYSCORE', {})
local _, chunk_count = string.gsub(chunk_ends, '%d+', '')
local before_chunks = 15 + field_items
local before_events = before_chunks + chunk_count
local last = first_seq + #ARGV - before_events - 1
-- Without output there are only the events start, error and done.
if s.log_epoch == '0' and last > (status == 'failed' and 3 or 2) then note('output:') end
begin_log(s, epoch, n, lineage)
redis.call('UNLINK', LOG)
push_chunks(before_chunks + 1, before_events, chunk_ends)
write_tail(epoch, math.max(n, last - cap) + 1, last, before_events + 1 - first_seq, lineage)
redis.call('XTRIM', TAIL, 'MAXLEN', '=', cap)
redis.call('HSET', STATE, 'status', status, 'ended', now, unpack(ARGV, 16, before_chunks))
load_into(s, 'follow_up', 'webhook', 'archive')
-- A stream that a later request may continue keeps its request; one for the archive keeps it until it is there.
if not (s.follow_up or s.archive) then
  redis.call('HDEL', STATE, 'request', 'request_bytes')
  redis.call('UNLINK', REQUEST)
end
redis.call('HDEL', STATE, 'sources')
local bytes = stored_bytes()
redis.call('HSET', STATE, 'owed', tokens .. ' ' .. bytes .. ' ' .. cost)
if s.webhook then redis.call('HSET', STATE, 'undelivered', now) end
if s.archive then redis.call('HSET', STATE, 'unarchived', now) end
load_into(s, 'usage_wait_ms')
redis.call('ZADD', INDEX, now + 2000 + (s.usage_wait_ms or 0), ID)
redis.call('ZADD', ANSWERS, now, ID)
redis.call('ZREMRANGEBYSCORE', ANSWERS, '-inf', now - retention_ms)
redis.call('PEXPIRE', ANSWERS, retention_ms)
local answer = with_bytes(reply('OK', last, s), bytes, now + retention_ms)
rewrite_state_without(OF_RUNNING)
keep_until(now + math.max(retention_ms, s.webhook and delivery_ms or 0, s.archive and archive_ms or 0), tonumber(tombstone_ms))
-- Live readers have a minute for the rest of the tail; then only the log remains, and half the memory is free again.
redis.call('PEXPIREAT', TAIL, now + math.min(60000, retention_ms))
return answer
