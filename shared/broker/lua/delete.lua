#!lua flags=allow-oom
-- Deletes a stream's content at once. The tombstone stays, so that no worker heals the stream and its owner gets 410.
-- The idempotency entry stays too, so that a repeated POST does not generate again. The index has the stream until the
-- desk has settled it.
-- KEYS: 1-10 stream
-- ARGV: 1 tombstone_ms
-- Status: queued, running, completed, cancelled, failed → none
-- Replies {'MISSING'}, or {'DELETED', account, digest of its idempotency key, status, reason, owed, ended, ledger, key_id,
-- 1 if no worker ever had it, or 0} (the four before the ledger are '' if the desk is not owed its ending; a ledger that is
-- settled is '' too).

local tombstone_ms = ARGV[1]
local s = load('status', 'holder', 'principal', 'account', 'idempotency', 'reason', 'owed', 'ended', 'ledger', 'key_id', 'epoch')
if not s.status then return {'MISSING'} end
need_rights('DEL PEXPIREAT SET UNLINK ZADD ZREM', {})
redis.call('SET', TOMBSTONE, 'deleted ' .. s.principal, 'PX', tombstone_ms)
-- The sweep knows neither calls nor ending any more, so it leaves the caller time to tell the desk.
redis.call('ZADD', INDEX, now + 2000, ID)
live_until(INDEX, now + tombstone_ms)
redis.call('ZREM', ANSWERS, ID)
redis.call('UNLINK', REQUEST)
redis.call('DEL', STATE, LOG, TAIL, READERS)
notify_holder(s, 'cancel')
return {'DELETED', s.account or '', s.idempotency or '', s.owed and s.status or '', s.owed and s.reason or '', s.owed or '',
  s.owed and s.ended or '', (active(s) or s.owed) and s.ledger or '', s.key_id or '',
  s.status == 'queued' and s.epoch == '0' and 1 or 0}
