-- The start of the scripts that take many streams.

-- Returns what `handle(i, at)` does for the stream whose keys begin at KEYS[i] and whose arguments at ARGV[at]. What
-- fails for one stream must not leave the others without a reply (rule S4).
local function reply_of(handle, i, at)
  local _, answer = pcall(handle, i, at)
  return type(answer) == 'string' and {err = 'ERR ' .. answer} or answer
end
