#!lua
-- Notes for the stream's timeline that a reader came back or a provider failed. Resumes are counted, the first ones told.
-- ARGV: 1 `resume` or `failure`, 2 `same_epoch` or `reset`; or the provider and the error's code
-- Answers the stream's traceparent; '' where it has none, or there is no stream.

if redis.call('EXISTS', STATE) == 0 then return '' end
if ARGV[1] == 'failure' or redis.call('HINCRBY', STATE, 'resumes', 1) <= 20 then note(ARGV[1] .. ':' .. ARGV[2]) end
return redis.call('HGET', STATE, 'traceparent') or ''
