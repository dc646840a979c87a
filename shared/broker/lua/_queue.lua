-- The queue that admit.lua adds to, and its fairness: each account has one turn a round. An account that already had
-- its turn comes a round later; one with nothing waiting joins the round that is being taken now (docs/adr/0010).
-- queue (zset): id of the job → turn, the lowest is taken first. turns (hash): account → its last round. waiting (zset): id → time of
-- creation, ms. waiting_accounts (zset): members `<account> <id>`, all with the same score. batch_turns (hash): as turns,
-- for batch streams; and `passing`, how many interactive streams came while the first of them waited (see _classes.lua).

local QUEUE, TURNS, WAITING, WAITING_ACCOUNTS = unpack(KEYS, 2, 5)
local BATCH_TURNS = KEYS[13]

-- A turn is round × 2^32 + the second: within a round the oldest goes first.
local function next_turn(account, turns, batch)
  local head, first_round = head_of(QUEUE, batch), batch and BATCH_ROUND + 1 or 0
  if not head or redis.call('HLEN', turns) > 10000 then redis.call('DEL', turns) end
  local last = tonumber(redis.call('HGET', turns, account) or nil)
  if last and not batch and last >= BATCH_ROUND then last = nil end -- of a gateway that knows no classes
  local round = math.max(first_round, head and math.floor(head / ROUND) or 0, last and last + 1 or 0)
  if not batch then round = math.min(round, BATCH_ROUND - 1) end
  redis.call('HSET', turns, account, string.format('%.0f', round))
  return string.format('%.0f', round * ROUND + math.floor(now / 1000) % ROUND)
end

-- Lets the first batch stream join the interactive stream of this turn, if enough of those have passed it.
local function count_passing(turn)
  local first = first_batch(QUEUE)
  if not first or redis.call('HINCRBY', BATCH_TURNS, 'passing', 1) < MOST_PASSING then return end
  redis.call('HSET', BATCH_TURNS, 'passing', 0)
  redis.call('ZADD', QUEUE, turn, first)
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
local function enqueue(account, life_ms, batch)
  local turn = next_turn(account, batch and BATCH_TURNS or TURNS, batch)
  redis.call('HSET', OF, 'turn', turn)
  redis.call('ZADD', QUEUE, turn, JOB_ID)
  if not batch then count_passing(turn) end
  redis.call('ZADD', WAITING, now, ID)
  redis.call('ZADD', WAITING_ACCOUNTS, 0, account .. ' ' .. ID)
  for _, key in ipairs({QUEUE, TURNS, BATCH_TURNS, WAITING, WAITING_ACCOUNTS}) do redis.call('PEXPIRE', key, life_ms) end
  return redis.call('ZRANK', QUEUE, JOB_ID) + 1
end
