#!lua
-- Adds to the stream's timeline that a reader resumed, a provider failed, or the stream waits for one. All resumes are
-- counted, but only the first 20 are added. Also keeps the ledger, and that a provider has not answered a call yet, if
-- the caller holds the stream.
-- KEYS: 1-10 stream
-- ARGV: 1 event (`resume`, `failure`, `parked` or `called`; '': none), 2 detail (`same_epoch` or `reset`; the provider
--       and the error code; or the provider), 3 holder (of the stream, if it writes its ledger), 4 ledger, 5 accounted (the fields of the state;
--       '': unchanged)
-- Status: unchanged
-- Replies the stream's traceparent; '' if it has none, or there is no stream.

local event, detail, holder, ledger, accounted = unpack(ARGV, 1, 5)
if redis.call('EXISTS', STATE) == 0 then return '' end
local epoch, current = unpack(redis.call('HMGET', STATE, 'epoch', 'holder'))
local is_holder = current and current == holder
if event == 'called' and not is_holder then return '' end
local is_noted = event ~= '' and (event ~= 'resume' or redis.call('HINCRBY', STATE, 'resumes', 1) <= 20)
if is_noted then note(event .. ':' .. detail) end
if event == 'called' then redis.call('HSET', STATE, 'called', epoch) end
if ledger ~= '' and is_holder then
  redis.call('HSET', STATE, 'ledger', ledger, 'accounted', accounted)
end
return redis.call('HGET', STATE, 'traceparent') or ''
