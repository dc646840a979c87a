#!lua
-- Notes that a reader came back, for the stream's timeline: each is counted, the first ones are told.
-- ARGV: 1 how: `same_epoch` or `reset`
-- Answers the stream's traceparent; '' where it has none, or there is no stream.

if redis.call('EXISTS', STATE) == 0 then return '' end
if redis.call('HINCRBY', STATE, 'resumes', 1) <= 20 then note('resume:' .. ARGV[1]) end
return redis.call('HGET', STATE, 'traceparent') or ''
