#!lua flags=allow-oom
-- The last append: the remaining events, `done` among them, and the terminal state in one step. No window.
-- ARGV: 1 epoch, 2 holder, 3 seq of the first event given, 4 cap, 5 retention ms, 6 tombstone ms, 7 status,
--       8 1: only if nobody watches, 9 tokens that it took, 10 number of state fields and values,
--       11.. field, value, …, then the events
-- Answers as append does, or WATCHED where a reader came in the meantime (nothing is written then).

local epoch, first = tonumber(ARGV[1]), tonumber(ARGV[3])
local s = load_for_writer()
local refusal = refuse(s, epoch, ARGV[2])
if refusal then return refusal end
local n = log_length(s, epoch)
if first > n + 1 then return answer('GAP', n, s) end
if ARGV[8] == '1' and signal(s) == '' then return answer('WATCHED', n, s) end

local events = 10 + tonumber(ARGV[10])
local last = first + #ARGV - events - 1
if s.log_epoch == '0' and last > (ARGV[7] == 'failed' and 3 or 2) then note('output:') end -- not only start, error, done
write(s, epoch, n, last, events + 1 - first, tonumber(ARGV[4]))
redis.call('HSET', STATE, 'status', ARGV[7], 'ended', now, unpack(ARGV, 11, events))
settle(tonumber(ARGV[9]))
leave_lane(load_into(s, 'lane', 'follow_up'))
redis.call('HDEL', STATE, 'holder', 'lease_until', 'full')
-- What a later request may go on from stays with the answer.
if not s.follow_up then redis.call('HDEL', STATE, 'request') end
for _, waits in ipairs({INDEX, 'hr:queue'}) do redis.call('ZREM', waits, ID) end
redis.call('DEL', 'arq:job:' .. ID)
keep_until(now + ARGV[5], tonumber(ARGV[6]))
count_ending(ARGV[7], tonumber(ARGV[9]), tonumber(ARGV[5]))
-- Who reads live has a minute for what is left of the tail; then the log has it all, and half the memory is free again.
redis.call('PEXPIREAT', TAIL, now + math.min(60000, ARGV[5]))
return answer('OK', last, s)
