#!lua flags=no-writes
-- A page of the log after a cursor, and the stream's state at the same instant.
-- KEYS: 1-8 stream
-- ARGV: 1 epoch, 2 seq (of the cursor), 3 most_events, 4 most_bytes (after which the page ends),
--       5 healing_ms (that a worker may take to heal a stream that Redis lost)
-- Status: unchanged
-- Replies {} for an unknown stream, {tombstone} for one that is gone, {''} if it may just have been lost, else
-- {status, principal, epoch of the log, its lineage (see epoch_of), events in the log, seq of the first event given,
-- events…}. A cursor that is neither in the log nor beyond its end reads from the start.

local epoch, seq, most_events, most_bytes, healing_ms = unpack(ARGV, 1, 5)
local s = load('status', 'principal', 'log_epoch', 'lineage')
if not s.status then
  local stone = redis.call('GET', TOMBSTONE)
  if stone then return {stone} end
  return is_recovering(tonumber(healing_ms), true) and {''} or {}
end
local log_epoch, n = tonumber(s.log_epoch), redis.call('LLEN', LOG)
local first = epoch_of(tonumber(seq), log_epoch, s.lineage) == tonumber(epoch) and seq + 1 or 1
local page, bytes = {s.status, s.principal, log_epoch, s.lineage or '', n, first}, 0
local last = math.min(n, first + most_events - 1)
for from = first, last, 32 do
  for _, event in ipairs(redis.call('LRANGE', LOG, from - 1, math.min(from + 31, last) - 1)) do
    page[#page + 1] = event
    bytes = bytes + #event
  end
  if bytes >= tonumber(most_bytes) then break end
end
return page
