#!lua flags=allow-oom
-- Ends a stream at the desk, after it ended or is gone in its bucket: frees its place and slots, corrects what was
-- reserved, and counts its ending, its calls and its bytes. A repeated call counts nothing again.
-- KEYS: 1 of (see _desk.lua), 2 job (string, arq's bytes), 3 queue (zset: id of the job → turn),
--       4 waiting, 5 waiting_accounts (see _queue.lua), 6 used, 7 streams (see _rate_limits.lua),
--       8 stored, 9 kept, 10 sources, 11 removed (see _storage.lua), 12 ended, 13 failed, 14 minute (see _endings.lua),
--       15 usage… (hashes of each day of its calls: of all streams, of the account; see _usage.lua),
--       lanes… (running, parked, tokens, used of each lane of the stream; see _provider_limit.lua), budgets… (see
--       _budgets.lua)
-- ARGV: 1 stream_id, 2 account, 3 kind (ended, pending: ended, and to be archived; deleted, dropped, refused: it was
--       never created, or expired),
--       4 status, 5 reason (of the ending; '': it is not counted), 6 tokens (used; '': as many as were reserved),
--       7 bytes (of the ended stream), 8 expires (until when, ms), 9 digest (of its idempotency key), 10 tombstone_ms,
--       11 retention_ms, 12 cost (of its calls, in nanos; '?': unknown, so what was reserved is charged),
--       13 usage_ms (for which sums of a day are kept), 14 usage_days, 15 usage_items (number of days, and of items in
--       usage), 16 lane_count, 17 charged_tokens (used by all calls, for budgets; '': as many as were reserved),
--       18 usage… (rows of add_usage), lanes…, budgets… (accounts; both in the order of the keys)
-- Replies {bytes given back, '<id> <digest>', …} with removed streams of which the caller deletes what stays, or {'LANES',
-- lanes, accounts of budgets} (see lanes_lacking, budgets_lacking).

local stream_id, account, kind, status, reason, tokens, bytes, expires, digest, tombstone_ms,
  retention_ms, cost, usage_ms, usage_days, usage_items, lane_count, charged_tokens = unpack(ARGV, 1, 17)
local JOB, QUEUE, WAITING, WAITING_ACCOUNTS, USED, STREAMS, STORED, KEPT, SOURCES, REMOVED, ENDED, FAILED,
  MINUTE = unpack(KEYS, 2, 14)
local a = {used = USED, streams = STREAMS, stored = STORED, kept = KEPT, sources = SOURCES, removed = REMOVED}
local lanes_key, lanes_at = 15 + 2 * usage_days, 18 + usage_items
local lanes = {unpack(ARGV, lanes_at, lanes_at + lane_count - 1)}
name_lanes(lanes_key, lanes)
local budget_keys = keys_of_budgets(lanes_key + 4 * lane_count, lanes_at + lane_count)
local known, at, sources, again, budgets = unpack(redis.call('HMGET', OF, 'account', 'second', 'sources', 'again', 'budgets'))
local lacking, budgets_missing = lanes_lacking(), budgets_lacking(budgets, budget_keys)
if lacking or budgets_missing then return {'LANES', lacking or table.concat(lanes, '\n'), budgets_missing or ''} end
need_rights('DEL HDEL HEXISTS HGET HINCRBY HMGET HSET HSETNX PEXPIRE PEXPIREAT ZADD ZCARD ZRANGE ZREM ZREMRANGEBYRANK ' ..
  'ZREMRANGEBYSCORE ZSCORE', KEYS)

if known then
  settle_budgets(budgets, budget_keys, {tokens = charged_tokens ~= '' and charged_tokens, nanos = cost ~= '?' and cost}, again)
  tokens = tonumber(tokens)
  if kind == 'refused' and at then correct(USED, -1, {'r' .. at}, {}) end
  settle(a, tokens)
  leave_lanes(tokens)
  if status ~= '' then count_ending({ended = ENDED, failed = FAILED, minute = MINUTE}, status, reason, tokens, retention_ms) end
  add_usage(15, 18, 17 + usage_items, usage_ms)
  forget_sources(a, sources)
  redis.call('DEL', OF)
end
-- A call that counts a lost stream again may be on its way.
if (again or not known) and redis.call('HSETNX', OF, 'refused', 'GONE') == 1 then redis.call('PEXPIRE', OF, 60000) end
redis.call('DEL', JOB)
redis.call('ZREM', QUEUE, JOB_ID)
redis.call('ZREM', WAITING, ID)
redis.call('ZREM', WAITING_ACCOUNTS, account .. ' ' .. ID)

if kind == 'ended' or kind == 'pending' then
  -- Once it is archived, a stream is settled again, with fewer bytes. A late call about that ending must not undo that.
  local counted_until = kind == 'pending' and not known and redis.call('ZSCORE', KEPT, ID)
  local is_late = counted_until and tonumber(expires) <= tonumber(counted_until)
  if not is_late and not is_removed(a, digest) then count_stored(a, bytes, tonumber(expires)) end
  return {0}
end
local freed = give_back(a, {ID})
if kind == 'refused' or kind == 'expired' then return {freed} end
for _, key in ipairs({ENDED, FAILED}) do redis.call('ZREM', key, ID) end
return {freed, unpack(note_removed(a, digest, tombstone_ms))}
