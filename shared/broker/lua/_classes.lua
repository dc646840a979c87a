-- Classes of the queue: every interactive stream comes before all batch streams (docs/adr/0034). The class is in the turn:
-- those of batch streams begin at BATCH. Doubles that large have a step of 16, so batch streams of one round and 16 s
-- are in no order.

local ROUND = 4294967296 -- turns of one round, see next_turn
local BATCH_ROUND = 16777216
local BATCH = BATCH_ROUND * ROUND
local BATCH_TEXT = string.format('%.0f', BATCH)
-- Interactive streams that may pass a batch stream; then that one is next.
local MOST_PASSING = 9

local function is_batch(turn) return (tonumber(turn) or 0) >= BATCH end

-- Returns the first batch stream of a sorted set of turns, and its turn.
local function first_batch(set)
  local first = redis.call('ZRANGEBYSCORE', set, BATCH_TEXT, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return first[1], tonumber(first[2])
end

-- Returns the lowest turn in the queue of one class, or nil.
local function head_of(queue, batch)
  if batch then
    local _, turn = first_batch(queue)
    return turn
  end
  local head = tonumber(redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')[2])
  return head and head < BATCH and head or nil
end

-- Returns the turn `before` places in front of all others of the class of `turn`, for streams that have waited already.
local function front(queue, turn, before)
  if not is_batch(turn) then return string.format('%.0f', (head_of(queue, false) or 0) - before) end
  return string.format('%.0f', math.max(BATCH, (head_of(queue, true) or tonumber(turn)) - 16 * before))
end
