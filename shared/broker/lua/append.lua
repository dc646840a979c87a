#!lua
-- Adds events to log and tail, as far as the window allows. Events the log already has are skipped.
-- ARGV: 1 epoch, 2 holder, 3 seq of the first event given, 4 window in events (0: none, for a re-send), 5 cap, 6.. events
-- Answers, in this order of checks: MISSING, CLOSED, SUPERSEDED, BEHIND, GAP n, then OK n or FULL n.

local epoch, first = tonumber(ARGV[1]), tonumber(ARGV[3])
local s = load_for_writer()
local refusal = refuse(s, epoch, ARGV[2])
if refusal then return refusal end
local n = log_length(s, epoch)
if first > n + 1 then return answer('GAP', n, s) end

local last = first + #ARGV - 6
local upto, window = last, tonumber(ARGV[4])
-- Who goes on unwatched has no window while no live reader is there.
if window > 0 and (s.on_disconnect == 'cancel' or live(s)) then
  local lead = tonumber(s.log_epoch) == epoch and s.lead or 0
  upto = math.min(last, lead + window)
end
if tonumber(s.log_epoch) ~= epoch and upto > n then note('output:') end
write(s, epoch, n, upto, 6 - first, tonumber(ARGV[5]))
if upto < last then
  redis.call('HSET', STATE, 'full', 1)
  return answer('FULL', math.max(n, upto), s)
end
return answer('OK', math.max(n, upto), s)
