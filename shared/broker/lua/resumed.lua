#!lua
-- Notes that a reader came back, for the stream's timeline: each is counted, the first ones are told.
-- ARGV: 1 how: `same_epoch` or `reset`
-- Answers how many there were; 0 where there is no stream.

if redis.call('EXISTS', STATE) == 0 then return 0 end
local n = redis.call('HINCRBY', STATE, 'resumes', 1)
if n <= 20 then note('resume:' .. ARGV[1]) end
return n
