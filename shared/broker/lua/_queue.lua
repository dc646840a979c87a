-- The queue that admit.lua adds to, and its fairness: each account has one turn a round. An account that already had
-- its turn comes a round later; one with nothing waiting joins the round that is being taken now (docs/adr/0010).
-- queue (zset): id of the job → turn, the lowest is taken first. turns (hash): account → its last round. waiting (zset): id → time of
-- creation, ms. waiting_accounts (zset): members `<account> <id>`, all with the same score.

local QUEUE, TURNS, WAITING, WAITING_ACCOUNTS = unpack(KEYS, 2, 5)

-- A turn is round × 2^32 + the second: within a round the oldest goes first.
local function next_turn(account)
  local head = redis.call('ZRANGE', QUEUE, 0, 0, 'WITHSCORES')[2]
  if not head or redis.call('HLEN', TURNS) > 10000 then redis.call('DEL', TURNS) end
  local last = redis.call('HGET', TURNS, account)
  local round = math.max(head and math.floor(head / 4294967296) or 0, last and last + 1 or 0)
  redis.call('HSET', TURNS, account, round)
  return string.format('%.0f', round * 4294967296 + math.floor(now / 1000) % 4294967296)
end

-- Counts streams that no worker has taken yet. Entries older than a stream's keys belong to streams that expired.
local function count_waiting(life_ms)
  redis.call('ZREMRANGEBYSCORE', WAITING, '-inf', now - life_ms)
  return redis.call('ZCARD', WAITING)
end

-- True if a stream of this account waits for a worker.
local function is_waiting(account)
  while true do
    local range = {'[' .. account .. ' ', '(' .. account .. '!', 'LIMIT', 0, 1}
    local member = redis.call('ZRANGEBYLEX', WAITING_ACCOUNTS, unpack(range))[1]
    if not member then return false end
    if redis.call('ZSCORE', WAITING, string.match(member, ' (%x+)$')) then return true end
    redis.call('ZREM', WAITING_ACCOUNTS, member)
  end
end

-- Returns the queue position, 1 for the next. All keys live for `life_ms`.
local function enqueue(account, life_ms)
  local turn = next_turn(account)
  redis.call('HSET', OF, 'turn', turn)
  redis.call('ZADD', QUEUE, turn, JOB_ID)
  redis.call('ZADD', WAITING, now, ID)
  redis.call('ZADD', WAITING_ACCOUNTS, 0, account .. ' ' .. ID)
  for _, key in ipairs({QUEUE, TURNS, WAITING, WAITING_ACCOUNTS}) do redis.call('PEXPIRE', key, life_ms) end
  return redis.call('ZRANK', QUEUE, JOB_ID) + 1
end
