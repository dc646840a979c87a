#!lua
-- Makes a stream the latest one of its chat, before the stream is created: of two requests that continue the same
-- answer, one is accepted. `joined_chat` confirms the stream, or removes it.
-- KEYS: 1 chat (hash: stream, created, updated, message, received, pending, pending_until,
--       pending_before: the pending stream that a pending one took the place of),
--       2 members (zset: id of a stream → when it joined, ms)
-- ARGV: 1 stream_id, 2 expected (the latest stream, which this one continues; '' of a new chat; '*' for any),
--       3 message (the client's id of the answer, sealed, or ''), 4 pending_ms (for which it waits for its confirmation; 0
--       if it exists already), 5 most_members, 6 life_ms
-- Replies {'JOINED'}, {'MOVED'} if the chat has another latest stream, or {'PENDING', ms} if that is being created.

local CHAT, MEMBERS = unpack(KEYS, 1, 2)
local stream_id, expected, message, pending_ms, most_members, life_ms = unpack(ARGV, 1, 6)
need_rights('DEL HDEL HMGET HSET HSETNX PEXPIRE ZADD ZRANGE ZREM ZREMRANGEBYRANK ZSCORE', {MEMBERS})
local latest, pending, pending_until = unpack(redis.call('HMGET', CHAT, 'stream', 'pending', 'pending_until'))
local abandoned
if expected ~= '*' then
  if pending and pending == latest then
    if now < tonumber(pending_until) then return {'PENDING', tonumber(pending_until) - now} end
    abandoned, latest = pending, redis.call('ZRANGE', MEMBERS, -2, -2)[1]
  end
  if (latest or '') ~= expected then return {'MOVED'} end
end

if abandoned then redis.call('ZREM', MEMBERS, abandoned) end
local newest = redis.call('ZRANGE', MEMBERS, -1, -1, 'WITHSCORES')[2]
redis.call('ZADD', MEMBERS, 'NX', math.max(now, (newest or 0) + 1), stream_id)
redis.call('ZREMRANGEBYRANK', MEMBERS, 0, -most_members - 1)
redis.call('HSETNX', CHAT, 'created', now)
redis.call('HSET', CHAT, 'stream', stream_id, 'updated', now, 'message', message)
redis.call('HDEL', CHAT, 'pending', 'pending_until', 'pending_before')
if pending_ms ~= '0' then
  redis.call('HSET', CHAT, 'pending', stream_id, 'pending_until', now + pending_ms)
  if pending and pending == latest then redis.call('HSET', CHAT, 'pending_before', pending) end
end
redis.call('PEXPIRE', CHAT, life_ms)
redis.call('PEXPIRE', MEMBERS, life_ms)
return {'JOINED'}
