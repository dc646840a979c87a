#!lua flags=allow-oom
-- Marks a stream to be stopped, and notifies the worker that holds it.
-- KEYS: 1-10 stream
-- ARGV: 1 reason
-- Status: unchanged
-- Replies {'MISSING'}, {'CLOSED'}, {'HELD'} (a worker ends it: the one that holds it, or the one that takes it over
-- and stops the provider's stored answer) or {'UNHELD'} (the caller has to).

local reason = ARGV[1]
local s = load('status', 'holder', 'lease_until', 'provider_cursor')
if not s.status then return {'MISSING'} end
if not active(s) then return {'CLOSED'} end
if redis.call('HSETNX', STATE, 'cancel', reason) == 1 then note('cancel:' .. reason) end
if not held(s) and (s.provider_cursor or '-') == '-' then return {'UNHELD'} end
notify_holder(s, 'cancel')
return {'HELD'}
