#!lua flags=allow-oom
-- Marks a stream to be stopped, and tells the worker that holds it.
-- ARGV: 1 reason
-- Answers {'MISSING'}, {'CLOSED'}, {'HELD'}: its worker ends it, or {'UNHELD'}: the caller has to.

local s = load('status', 'holder', 'lease_until')
if not s.status then return {'MISSING'} end
if not active(s) then return {'CLOSED'} end
if redis.call('HSETNX', STATE, 'cancel', ARGV[1]) == 1 then note('cancel:' .. ARGV[1]) end
if not held(s) then return {'UNHELD'} end
tell_holder(s, 'cancel')
return {'HELD'}
