-- Compressed chunks of a log, for every script of streams.

-- Last seq in the chunks of a log. `chunks`: the state's field, the last seq in each, such as '256 502'; false if there
-- are none.
local function last_in_chunks(chunks)
  return chunks and tonumber(string.match(chunks, '%d+$', -16)) or 0
end
