-- The common append, at half the cost of append.lua, which handles the others after it in the same script. It applies
-- if the caller holds the lease and goes on where the log ends, a live reader is within the window, and the tail has
-- events and room. The holder is a token of one claim and leaves the state with the end, so it stands for the status and
-- the epoch too.
-- KEYS and ARGV: see append.lua.
messages = {}
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000

-- Returns the reply to the append whose keys begin at KEYS[i] and whose arguments at ARGV[at]; nil if it is not common.
local function append_fast(i, at)
  local epoch, holder, first_seq, window, cap, lineage, provider_cursor, count = unpack(ARGV, at, at + 7)
  local state, tail = KEYS[i], KEYS[i + 2]
  local s = redis.call('HMGET', state, 'holder', 'log_epoch', 'cancel', 'lead', 'live_until', 'gateways', 'chunks')
  local n, in_tail = first_seq - 1, redis.call('XLEN', tail)
  local last, base = n + count, at + 7 - n
  if s[1] == holder and s[2] == epoch and not s[3]
      and in_tail > 0 and n == last_in_chunks(s[7]) + in_tail and in_tail + count <= tonumber(cap)
      and last <= s[4] + window and now < tonumber(s[5]) then
    for q = n + 1, last do redis.call('XADD', tail, epoch .. '-' .. q, 'e', ARGV[base + q]) end
    if provider_cursor ~= '' then redis.call('HSET', state, 'provider_cursor', provider_cursor) end
    notify_gateways(i, s[6], epoch, n + 1, last, base)
    return {'OK', last, '', 1, tonumber(epoch)}
  end
end

-- An error concerns all streams that a message has events of.
local function with_messages_sent(replies)
  for gateway, message in pairs(messages) do
    local failed = publish(gateway, message)
    for _, i in ipairs(failed and message.senders or {}) do replies[(i + 2) / 3] = failed end
  end
  return replies
end

local replies, rest = {}, {} -- the arguments of the rest, by the places of its keys
do
  local at = 1
  for i = 1, #KEYS, 3 do
    local answer = reply_of(append_fast, i, at)
    if answer then replies[(i + 2) / 3] = answer else rest[i] = at end
    at = at + 8 + ARGV[at + 7]
  end
  if not next(rest) then return with_messages_sent(replies) end
end
