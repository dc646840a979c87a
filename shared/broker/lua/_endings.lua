-- How streams end, for operators: counted by the minute, and the last ones by name. keys.py has the keys.

local function remember(key, most, life)
  redis.call('ZADD', key, now, ID)
  redis.call('ZREMRANGEBYRANK', key, 0, -most - 1)
  redis.call('PEXPIRE', key, life)
end

local function count_ending(status, tokens, life)
  local minute = 'hr:endings:' .. math.floor(now / 60000)
  redis.call('HINCRBY', minute, status, 1)
  redis.call('HINCRBY', minute, 'tokens', tokens)
  remember('hr:ended', 100, life)
  if status == 'failed' then
    redis.call('HINCRBY', minute, 'failed:' .. (redis.call('HGET', STATE, 'reason') or ''), 1)
    remember('hr:failed', 50, life)
  end
  redis.call('PEXPIRE', minute, 3600000)
end
