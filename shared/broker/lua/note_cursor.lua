#!lua
-- Notes where the provider's stored answer is while it has no output yet; later, append does.
-- KEYS: 1-10 stream
-- ARGV: 1 epoch, 2 holder, 3 provider_cursor
-- Status: unchanged
-- Replies as append does; NOTED if it was noted.

local epoch, holder, provider_cursor = unpack(ARGV, 1, 3)
epoch = tonumber(epoch)
local s = load_for_writer()
local refusal = refuse(s, epoch, holder)
if refusal then return refusal end
need_rights('HSET', {})
redis.call('HSET', STATE, 'provider_cursor', provider_cursor)
return reply('NOTED', log_length(s, epoch), s)
