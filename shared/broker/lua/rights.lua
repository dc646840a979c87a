#!lua flags=no-writes
-- Tests the rights of the user of this connection. Runs none of the commands, and needs no right to ACL.
-- KEYS: 1 probe (any key of ours; it is not touched)
-- ARGV: 1 checks (one command with its arguments in each line)
-- Replies one number for each line: 0 if the user may not run it, else 1.

local checks = ARGV[1]
local rights = {}
for line in string.gmatch(checks, '[^\n]+') do
  local words = {}
  for word in string.gmatch(line, '%S+') do words[#words + 1] = word end
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  rights[#rights + 1] = (known and not allowed) and 0 or 1
end
return rights
