#!lua flags=allow-oom
-- Forgets a stream's content at once. The tombstone stays, so that nothing heals it and its owner is told 410;
-- the idempotency entry stays too, so that a repeated POST does not generate again.
-- KEYS: 9 queue, 10 job, 11 waiting, 12 owned
-- ARGV: 1 tombstone ms
-- Answers {'MISSING'} or {'DELETED'}.

local s = load('status', 'holder', 'principal', 'lane')
if not s.status then return {'MISSING'} end
redis.call('SET', TOMBSTONE, 'deleted ' .. s.principal, 'PX', ARGV[1])
if active(s) then settle() end
leave_lane(s)
redis.call('DEL', STATE, LOG, TAIL, READERS, KEYS[10])
for _, key in ipairs({INDEX, KEYS[9], KEYS[11], KEYS[12], 'hr:ended', 'hr:failed'}) do redis.call('ZREM', key, ID) end
tell_holder(s, 'cancel')
return {'DELETED'}
