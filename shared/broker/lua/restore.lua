#!lua
-- Heals a Redis that forgot the stream, wholly or in part, from the memory of the worker that holds it (design §4 rule 3).
-- ARGV: 1 epoch, 2 holder, 3 lease ms, 4 cap, 5 retention ms, 6 tombstone ms, 7 body hash, 8 reader lease ms,
--       9 number of state fields and values, 10.. field, value, …, then all events of the epoch from seq 1
-- Writes only where the state is missing, or has a lower epoch and has not ended; otherwise it answers as append does.

local epoch = tonumber(ARGV[1])
local s = load_for_writer()
local refusal = refuse(s, epoch, ARGV[2])
if refusal and refusal[1] ~= 'MISSING' and refusal[1] ~= 'BEHIND' then return refusal end
if not refusal then return answer('GAP', log_length(s, epoch), s) end

local events = 9 + tonumber(ARGV[9])
redis.call('HSET', STATE, 'live_until', 0, 'polled_until', now + ARGV[8], 'log_epoch', 0, 'lead', 0,
  unpack(ARGV, 10, events))
redis.call('HSET', STATE, 'status', 'running', 'epoch', epoch, 'holder', ARGV[2], 'lease_until', now + ARGV[3],
  'expires', now + ARGV[5])
redis.call('ZADD', INDEX, now + ARGV[3], ID)
if IDEMPOTENCY then redis.call('SET', IDEMPOTENCY, ID .. ' ' .. ARGV[7]) end
redis.call('SET', TOMBSTONE, 'live ' .. redis.call('HGET', STATE, 'principal'))
load_into(s, 'account', 'lane')
if s.account then stay_in_account(s.account, tonumber(ARGV[5])) end
if s.lane then stay_in_lane(s.lane, now + ARGV[3]) end
redis.call('ZREM', 'hr:waiting', ID) -- an older Redis may know it as one that nobody took
s = load_for_writer()
write(s, epoch, 0, #ARGV - events, events, tonumber(ARGV[4]))
keep_until(now + ARGV[5], tonumber(ARGV[6]))
return answer('OK', #ARGV - events, s)
