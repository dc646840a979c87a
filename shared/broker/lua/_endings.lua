-- Endings: the index of answers that may be dropped, and for operators counts per minute and the latest ids.
-- keys.py describes the keys.

local function keep_latest(key, most, life_ms)
  redis.call('ZADD', key, now, ID)
  redis.call('ZREMRANGEBYRANK', key, 0, -most - 1)
  redis.call('PEXPIRE', key, life_ms)
end

local function count_ending(status, tokens, life_ms)
  redis.call('ZADD', ANSWERS, now, ID)
  redis.call('ZREMRANGEBYSCORE', ANSWERS, '-inf', now - life_ms)
  redis.call('PEXPIRE', ANSWERS, life_ms)
  local minute = 'hr:{desk}:endings:' .. math.floor(now / 60000)
  redis.call('HINCRBY', minute, status, 1)
  redis.call('HINCRBY', minute, 'tokens', tokens)
  keep_latest('hr:{desk}:ended', 100, life_ms)
  if status == 'failed' then
    redis.call('HINCRBY', minute, 'failed:' .. (redis.call('HGET', STATE, 'reason') or ''), 1)
    keep_latest('hr:{desk}:failed', 50, life_ms)
  end
  redis.call('PEXPIRE', minute, 3600000)
end
