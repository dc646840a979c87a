#!lua flags=allow-oom
-- Forgets a stream's content at once. The tombstone stays, so that nothing heals it and its owner is told 410;
-- the idempotency entry stays too, so that a repeated POST does not generate again.
-- ARGV: 1 tombstone ms
-- Answers {'MISSING'} or {'DELETED'}.

local s = load('status', 'holder', 'principal')
if not s.status then return {'MISSING'} end
redis.call('SET', TOMBSTONE, 'deleted ' .. s.principal, 'PX', ARGV[1])
redis.call('DEL', STATE, LOG, TAIL, READERS)
redis.call('ZREM', INDEX, ID)
tell_holder(s, 'cancel')
return {'DELETED'}
