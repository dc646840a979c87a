#!lua flags=allow-oom
-- Gives the revocation of an account's links a number that is higher than all before it. The number orders revocations
-- and tickets; the clock only decides when to forget, since it may have been ahead, or been set back.
-- KEYS: 1 revoked_links (zset: account → number)
-- ARGV: 1 account, 2 kept_ms
-- Replies the number: the time in milliseconds, or one more than the last.

local REVOKED_LINKS = KEYS[1]
local account, kept_ms = unpack(ARGV, 1, 2)
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local last = redis.call('ZRANGE', REVOKED_LINKS, 0, 0, 'REV', 'WITHSCORES')[2]
local number = math.max(now, (last or 0) + 1)
redis.call('ZADD', REVOKED_LINKS, number, account)
redis.call('ZREMRANGEBYSCORE', REVOKED_LINKS, '-inf', now - kept_ms)
redis.call('PEXPIREAT', REVOKED_LINKS, number + kept_ms)
return number
