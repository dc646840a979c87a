#!lua flags=no-writes
-- A page of the log after a cursor, and the stream's state at the same instant.
-- KEYS: 1-10 stream
-- ARGV: 1 epoch, 2 seq (of the cursor), 3 most_events, 4 most_bytes (after which the page ends),
--       5 healing_ms (that a worker may take to heal a stream that Redis lost)
-- Status: unchanged
-- Replies {} for an unknown stream, {tombstone} for one that is gone, {''} if it may just have been lost, else
-- {status, principal, epoch of the log, its lineage (see epoch_of), events in the log, seq of the first event of the
-- page, events in chunks before the first of these, number of these, chunks…, events…}. The chunks are those that have
-- the page's events; most_bytes counts them as they are. The events are of the tail and follow them. A cursor that is
-- neither in the log nor beyond its end reads from the start.

local epoch, seq, most_events, most_bytes, healing_ms = unpack(ARGV, 1, 5)
most_bytes = tonumber(most_bytes)
local s = load('status', 'principal', 'log_epoch', 'lineage', 'chunks')
if not s.status then
  local stone = redis.call('GET', TOMBSTONE)
  if stone then return {stone} end
  return is_recovering(tonumber(healing_ms), true) and {''} or {}
end
local log_epoch, n = tonumber(s.log_epoch), count_events(s)
local first = epoch_of(tonumber(seq), log_epoch, s.lineage) == tonumber(epoch) and seq + 1 or 1
local last = math.min(n, first + most_events - 1)
local page, bytes = {s.status, s.principal, log_epoch, s.lineage or '', n, first, 0, 0}, 0

local before, index = 0, 0
for chunk_end in string.gmatch(s.chunks or '', '%d+') do
  if tonumber(chunk_end) >= first and before < last and bytes < most_bytes then
    local chunk = redis.call('LRANGE', LOG, index, index)[1]
    if not chunk then return page end
    if page[8] == 0 then page[7] = before end
    page[8] = page[8] + 1
    page[#page + 1] = chunk
    bytes = bytes + #chunk
  end
  before, index = tonumber(chunk_end), index + 1
end

local next_seq = math.max(first, before + 1)
while next_seq <= last and bytes < most_bytes do
  local id = epoch_of(next_seq, log_epoch, s.lineage) .. '-' .. next_seq
  local entries = redis.call('XRANGE', TAIL, id, '+', 'COUNT', math.min(32, last - next_seq + 1))
  if #entries == 0 then return page end
  for _, entry in ipairs(entries) do
    -- An event is in the page only under its own id.
    if entry[1] ~= epoch_of(next_seq, log_epoch, s.lineage) .. '-' .. next_seq then return page end
    page[#page + 1] = entry[2][2]
    bytes = bytes + #entry[2][2]
    next_seq = next_seq + 1
  end
end
return page
