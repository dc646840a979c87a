-- The queue that create.lua adds to, and its fairness: everybody has one turn a round. Who asks again comes a round
-- later; who has nothing waiting comes in the round that is being taken now (docs/adr/0010).
-- KEYS: 9 queue (zset: id → turn, the lowest is taken first), 10 job (string, arq's bytes), 11 turns (hash: account →
--       its last round), 12 waiting (zset: id → when it was created, ms)

local QUEUE, JOB, TURNS, WAITING = unpack(KEYS, 9)

-- A turn is round × 2^32 + the second: within a round the oldest goes first.
local function next_turn(account)
  local head = redis.call('ZRANGE', QUEUE, 0, 0, 'WITHSCORES')[2]
  if not head or redis.call('HLEN', TURNS) > 10000 then redis.call('DEL', TURNS) end
  local last = redis.call('HGET', TURNS, account)
  local round = math.max(head and math.floor(head / 4294967296) or 0, last and last + 1 or 0)
  redis.call('HSET', TURNS, account, round)
  return string.format('%.0f', round * 4294967296 + math.floor(now / 1000) % 4294967296)
end

-- Those that nobody has taken yet; what is older than a stream's keys has vanished with them.
local function count_waiting(life)
  redis.call('ZREMRANGEBYSCORE', WAITING, '-inf', now - life)
  return redis.call('ZCARD', WAITING)
end

-- Answers the place in the queue, 1 for the next. All keys live for `life` ms.
local function enqueue(account, job, life)
  local turn = next_turn(account)
  redis.call('HSET', STATE, 'turn', turn)
  redis.call('ZADD', QUEUE, turn, ID)
  redis.call('ZADD', WAITING, now, ID)
  redis.call('SET', JOB, job, 'PX', life)
  for _, key in ipairs({QUEUE, TURNS, WAITING}) do redis.call('PEXPIRE', key, life) end
  return redis.call('ZRANK', QUEUE, ID) + 1
end
