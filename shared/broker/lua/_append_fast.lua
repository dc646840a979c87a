-- Fast path for the common append, at half the cost of append.lua, which follows it in the same script. It applies if
-- the caller holds the lease and goes on where the log ends, a live reader is within the window, and the tail has room.
-- The holder is a token of one claim and leaves the state with the end, so it stands for the status and the epoch too.
-- Every other case falls through to append.lua.
-- KEYS and ARGV: see append.lua.
do
  local epoch, holder, first_seq, window, cap, _, provider_cursor = unpack(ARGV, 1, 7)
  local s = redis.call('HMGET', KEYS[1], 'holder', 'log_epoch', 'cancel', 'lead', 'live_until', 'gateways')
  local clock, n, count = redis.call('TIME'), redis.call('LLEN', KEYS[2]), #ARGV - 7
  if s[1] == holder and s[2] == epoch and not s[3]
      and n > 0 and n + 1 == tonumber(first_seq) and n + count <= s[4] + window
      and clock[1] * 1000 + clock[2] / 1000 < tonumber(s[5])
      and redis.call('XLEN', KEYS[3]) + count <= tonumber(cap)
      -- XADD fails if the tail has outlived the log; append.lua handles that.
      and type(redis.pcall('XADD', KEYS[3], epoch .. '-' .. n + 1, 'e', ARGV[8])) == 'string' then
    redis.call('RPUSH', KEYS[2], ARGV[8])
    for i = 2, count do
      redis.call('XADD', KEYS[3], epoch .. '-' .. n + i, 'e', ARGV[7 + i])
      redis.call('RPUSH', KEYS[2], ARGV[7 + i])
    end
    if provider_cursor ~= '' then redis.call('HSET', KEYS[1], 'provider_cursor', provider_cursor) end
    for gateway in string.gmatch(s[6] or '', '%S+') do
      redis.call('PUBLISH', 'hr:gateway:' .. gateway, string.match(KEYS[1], ':(%x+):state$'))
    end
    return {'OK', n + count, '', 1, tonumber(epoch)}
  end
end
