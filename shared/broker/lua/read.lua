#!lua flags=no-writes
-- A page of the log after a cursor, and the stream's state at the same instant.
-- KEYS: 1-8 stream
-- ARGV: 1 epoch, 2 seq (of the cursor), 3 most_events, 4 most_bytes (after which the page ends),
--       5 healing_ms (that a worker may take to heal a stream that Redis lost)
-- Status: unchanged
-- Replies {} for an unknown stream, {tombstone} for one that is gone, {''} if it may just have been lost, else
-- {status, principal, epoch of the log, its lineage (see epoch_of), events in the log, seq of the first event of the
-- page, -1, events…}. If the log is compressed, the number of events before the first chunk takes the place of -1, and
-- chunks that of events: those that have the page's events, and most_bytes counts them as they are. A cursor that is
-- neither in the log nor beyond its end reads from the start.

local epoch, seq, most_events, most_bytes, healing_ms = unpack(ARGV, 1, 5)
local s = load('status', 'principal', 'log_epoch', 'lineage', 'chunks')
if not s.status then
  local stone = redis.call('GET', TOMBSTONE)
  if stone then return {stone} end
  return is_recovering(tonumber(healing_ms), true) and {''} or {}
end
local log_epoch, n = tonumber(s.log_epoch), count_events(s.chunks)
local first = epoch_of(tonumber(seq), log_epoch, s.lineage) == tonumber(epoch) and seq + 1 or 1
local page, bytes = {s.status, s.principal, log_epoch, s.lineage or '', n, first, -1}, 0
local last = math.min(n, first + most_events - 1)
if s.chunks then
  local before, index = 0, 0
  for upto in string.gmatch(s.chunks, '%d+') do
    if tonumber(upto) >= first and before < last and bytes < tonumber(most_bytes) then
      if page[7] == -1 then page[7] = before end
      page[#page + 1] = redis.call('LRANGE', LOG, index, index)[1]
      bytes = bytes + #page[#page]
    end
    before, index = tonumber(upto), index + 1
  end
  return page
end
for from = first, last, 32 do
  for _, event in ipairs(redis.call('LRANGE', LOG, from - 1, math.min(from + 31, last) - 1)) do
    page[#page + 1] = event
    bytes = bytes + #event
  end
  if bytes >= tonumber(most_bytes) then break end
end
return page
