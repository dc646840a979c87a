-- Endings, for operators: counts per minute, and the latest ids. keys.py describes the keys; `e` has them.

local function keep_latest(key, most, life_ms)
  redis.call('ZADD', key, now, ID)
  redis.call('ZREMRANGEBYRANK', key, 0, -most - 1)
  redis.call('PEXPIRE', key, life_ms)
end

local function count_ending(e, status, reason, tokens, life_ms)
  redis.call('HINCRBY', e.minute, status, 1)
  redis.call('HINCRBY', e.minute, 'tokens', tokens)
  keep_latest(e.ended, 100, life_ms)
  if status == 'failed' then
    redis.call('HINCRBY', e.minute, 'failed:' .. reason, 1)
    keep_latest(e.failed, 50, life_ms)
  end
  redis.call('PEXPIRE', e.minute, 3600000)
end
