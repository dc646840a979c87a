#!lua flags=allow-oom
-- Drops the answer of a stream that has ended, to free storage, after `may_drop` at the desk. The tombstone stays, and so
-- does the idempotency entry. The index has the stream until the desk has settled it.
-- KEYS: 1-10 stream
-- ARGV: 1 tombstone_ms, 2 retention_min_ms (since the end, in which the answer is kept)
-- Status: completed, cancelled, failed → none
-- Replies {'DROPPED', account, digest of its idempotency key}; {'KEPT'} if the stream waits or runs, ended too recently,
-- has a live reader, or is not settled, delivered or archived yet.

local tombstone_ms, retention_min_ms = unpack(ARGV, 1, 2)
local s = load('status', 'principal', 'account', 'ended', 'idempotency', 'owed', 'undelivered', 'unarchived')
if not s.status or active(s) or s.owed or s.undelivered or s.unarchived then return {'KEPT'} end
if tonumber(s.ended) + retention_min_ms > now then return {'KEPT'} end
if redis.call('ZCOUNT', READERS, now, '+inf') > 0 then return {'KEPT'} end
need_rights('DEL PEXPIREAT SET UNLINK ZADD ZREM', {})
redis.call('SET', TOMBSTONE, 'dropped ' .. s.principal, 'PX', tombstone_ms)
redis.call('ZADD', INDEX, now, ID)
live_until(INDEX, now + tombstone_ms)
redis.call('ZREM', ANSWERS, ID)
redis.call('UNLINK', REQUEST)
redis.call('DEL', STATE, LOG, TAIL, READERS)
return {'DROPPED', s.account or '', s.idempotency or ''}
