#!lua flags=no-writes
-- A page of the log after a cursor, and with it everything a reader must know, as of one instant.
-- ARGV: 1 cursor epoch, 2 cursor seq, 3 most events, 4 bytes after which the page ends, 5 ms that a worker may take
--       to heal what Redis lost
-- Answers {} for an unknown stream, {tombstone} for one that is gone, {''} where it may just have been lost, else
-- {status, principal, epoch of the log, events in the log, seq of the first event given, events…}.
-- A cursor of another epoch reads from the start.

local s = load('status', 'principal', 'log_epoch')
if not s.status then
  local stone = redis.call('GET', TOMBSTONE)
  if stone then return {stone} end
  return in_trouble(tonumber(ARGV[5]), true) and {''} or {}
end
local log_epoch, n = tonumber(s.log_epoch), redis.call('LLEN', LOG)
local first = tonumber(ARGV[1]) == log_epoch and ARGV[2] + 1 or 1
local page, bytes = {s.status, s.principal, log_epoch, n, first}, 0
local last = math.min(n, first + ARGV[3] - 1)
for from = first, last, 32 do
  for _, event in ipairs(redis.call('LRANGE', LOG, from - 1, math.min(from + 31, last) - 1)) do
    page[#page + 1] = event
    bytes = bytes + #event
  end
  if bytes >= tonumber(ARGV[4]) then break end
end
return page
