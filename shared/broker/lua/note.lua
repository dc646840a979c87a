#!lua
-- Adds to the stream's timeline that a reader resumed, a provider failed, or the stream waits for one. All resumes are counted, but only the first
-- 20 are added.
-- KEYS: 1-10 stream
-- ARGV: 1 event (`resume`, `failure` or `parked`), 2 detail (`same_epoch` or `reset`; the provider and the error code; or
--       the provider)
-- Status: unchanged
-- Replies the stream's traceparent; '' if it has none, or there is no stream.

local event, detail = unpack(ARGV, 1, 2)
if redis.call('EXISTS', STATE) == 0 then return '' end
if event ~= 'resume' or redis.call('HINCRBY', STATE, 'resumes', 1) <= 20 then note(event .. ':' .. detail) end
return redis.call('HGET', STATE, 'traceparent') or ''
