-- The common append, at half the cost of `append_checked` in append.lua. It applies if the caller holds the lease and
-- goes on where the log ends, a live reader is within the window, and the tail has room. The holder is a token of one
-- claim and leaves the state with the end, so it stands for the status and the epoch too. Otherwise the reply is nil,
-- and nothing is written. Arguments: see append.lua; event q is ARGV[base + q].
local function append_fast(epoch, holder, first_seq, window, cap, provider_cursor, count, base)
  local s = redis.call('HMGET', STATE, 'holder', 'log_epoch', 'cancel', 'lead', 'live_until', 'gateways')
  local n, last = first_seq - 1, first_seq + count - 1
  if s[1] == holder and s[2] == epoch and not s[3]
      and n > 0 and n == redis.call('LLEN', LOG) and last <= s[4] + window
      and now < tonumber(s[5])
      and redis.call('XLEN', TAIL) + count <= tonumber(cap)
      -- XADD fails if the tail has outlived the log; append_checked handles that.
      and type(redis.pcall('XADD', TAIL, epoch .. '-' .. first_seq, 'e', ARGV[base + first_seq])) == 'string' then
    redis.call('RPUSH', LOG, ARGV[base + first_seq])
    for q = first_seq + 1, last do
      redis.call('XADD', TAIL, epoch .. '-' .. q, 'e', ARGV[base + q])
      redis.call('RPUSH', LOG, ARGV[base + q])
    end
    if provider_cursor ~= '' then redis.call('HSET', STATE, 'provider_cursor', provider_cursor) end
    notify_gateways(s[6], epoch, first_seq, last, base)
    return {'OK', last, '', 1, tonumber(epoch)}
  end
end
