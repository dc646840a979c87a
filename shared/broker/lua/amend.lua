#!lua flags=allow-oom
-- Replaces the estimated usage of a stream that has ended by the provider's count, unless the desk has settled it already.
-- KEYS: 1-10 stream
-- ARGV: 1 owed (the field of the state, as finish wrote it), 2 next_owed (in its place), 3 ledger (the field of the state),
--       4 usage_final (the provider's count, as the field `usage`)
-- Status: unchanged
-- Replies 1, or 0 if the desk is owed another ending, or none.

local owed, next_owed, ledger, usage_final = unpack(ARGV, 1, 4)
local s = load('status', 'owed')
if not s.status or active(s) or s.owed ~= owed then return 0 end
need_rights('HSET', {})
redis.call('HSET', STATE, 'owed', next_owed, 'ledger', ledger, 'usage_final', usage_final)
return 1
