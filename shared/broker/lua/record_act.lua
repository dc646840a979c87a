#!lua flags=allow-oom
-- Appends one entry to the audit log. It runs when Redis is full, since revocations and cancels do too.
-- KEYS: 1 audit (stream)
-- ARGV: 1 entry (JSON), 2 most_entries, 3 kept_ms
-- Replies the entry's id, which begins with the time in milliseconds by Redis' own clock.

local AUDIT = KEYS[1]
local entry, most_entries, kept_ms = unpack(ARGV, 1, 3)
need_rights('XADD PEXPIRE', {})
local id = redis.call('XADD', AUDIT, 'MAXLEN', '~', most_entries, '*', 'entry', entry)
redis.call('PEXPIRE', AUDIT, kept_ms)
return id
