-- The append of every day, put before the rest of append.lua at half its cost: the holder (a token of one claim, gone
-- from the state with the end) goes on where the log ends, with a live reader in reach and room in the tail. Whatever
-- is otherwise falls through: append.lua has the word.
do
  local s = redis.call('HMGET', KEYS[1], 'holder', 'log_epoch', 'cancel', 'lead', 'live_until', 'gateways')
  local clock, epoch, n, count = redis.call('TIME'), ARGV[1], redis.call('LLEN', KEYS[2]), #ARGV - 5
  if s[1] == ARGV[2] and s[2] == epoch and not s[3]
      and n > 0 and n + 1 == tonumber(ARGV[3]) and n + count <= s[4] + ARGV[4]
      and clock[1] * 1000 + clock[2] / 1000 < tonumber(s[5])
      and redis.call('XLEN', KEYS[3]) + count <= tonumber(ARGV[5])
      -- Refused where the tail has outlived the log, of which append.lua knows more.
      and type(redis.pcall('XADD', KEYS[3], epoch .. '-' .. n + 1, 'e', ARGV[6])) == 'string' then
    redis.call('RPUSH', KEYS[2], ARGV[6])
    for i = 2, count do
      redis.call('XADD', KEYS[3], epoch .. '-' .. n + i, 'e', ARGV[5 + i])
      redis.call('RPUSH', KEYS[2], ARGV[5 + i])
    end
    for gateway in string.gmatch(s[6] or '', '%S+') do
      redis.call('PUBLISH', 'hr:gateway:' .. gateway, string.match(KEYS[1], ':(%x+):state$'))
    end
    return {'OK', n + count, '', 1, tonumber(epoch)}
  end
end
