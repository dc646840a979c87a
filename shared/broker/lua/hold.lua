#!lua flags=allow-oom
-- Extends the places and slots of some streams for the workers that hold them, and counts their bytes.
-- KEYS: 1 of (see _desk.lua), 2 above_limit (zset: account → its limit of stored bytes), 3 streams (see _rate_limits.lua),
--       4 stored, 5 kept, 6 sources (see _storage.lua), 7 waiting, 8 waiting_accounts (see _queue.lua),
--       9 lanes… (running, parked, tokens, used of each lane of the stream; see _provider_limit.lua) (of each stream)
-- ARGV: 1 stream_id, 2 holder, 3 lease_ms, 4 account, 5 bytes (of the stream), 6 expires (until when, ms),
--       7 stored_limit (of the account; 0: none), 8 again (1: count a stream that the desk has lost; 2: its account has
--       limits; 0: no), 9 life_ms (after which its account forgets it), 10 tokens, 11 targets, 12 made_from (as for
--       `admit`; of a stream that is counted again), 13 budgets (reserved, as in _desk.lua; the desk has lost what they
--       had reserved, and only charges what the stream uses), 14 batch (1: its class, see _classes.lua),
--       15 lane_items (number of items in lanes), 16 lanes… (in the order of the keys) (all this of each stream)
-- Replies for each {'OK'}, {'FAR'} (the account is far above its limit, and the stream has to stop), {'UNKNOWN'} (the
-- desk does not have it), {'OTHER'} (another holds it, or it is gone), or {'LANES', lanes} (see lanes_lacking).

-- Counts a stream that the desk has lost.
local function count_again(a, account, is_limited, life_ms, tokens, targets, made_from, expires, lanes, budgets, batch)
  redis.call('HSET', OF, 'account', account, 'tokens', tokens, 'targets', targets, 'sources', made_from, 'again', 1)
  if batch == '1' then redis.call('HSET', OF, 'turn', BATCH_TEXT) end
  if #lanes > 0 then redis.call('HSET', OF, 'lane', table.concat(lanes, '\n')) end
  local day = math.floor(now / 86400000)
  if budgets ~= '' then redis.call('HSET', OF, 'budgets', string.gsub(budgets, '%S+', '%0:' .. day) .. '') end
  redis.call('PEXPIRE', OF, life_ms)
  keep_sources(a, made_from, expires)
  if is_limited then
    redis.call('HSET', OF, 'reserved', tokens, 'second', second)
    hold_account_slot(a, life_ms)
  end
end

local function hold(i, at)
  local stream_id, holder, lease_ms, account, bytes, expires, stored_limit, again, life_ms, tokens, targets, made_from,
    budgets, batch, lane_items = unpack(ARGV, at, at + 14)
  local lanes = {unpack(ARGV, at + 15, at + 14 + lane_items)}
  local of, above_limit, streams, stored, kept, sources, waiting, waiting_accounts = unpack(KEYS, i, i + 7)
  local a = {above_limit = above_limit, streams = streams, stored = stored, kept = kept, sources = sources}
  OF, ID, expires = of, stream_id, tonumber(expires)
  name_lanes(i + 8, lanes)
  local known, current, until_ms, left, refused = unpack(redis.call('HMGET', OF, 'account', 'holder', 'until', 'left',
    'refused'))
  if refused or left == holder or (current and current ~= holder and tonumber(until_ms) > now) then return {'OTHER'} end
  if not known then
    if again == '0' then return {'UNKNOWN'} end
    count_again(a, account, again == '2', tonumber(life_ms), tokens, targets, made_from, expires, lanes, budgets, batch)
  end
  local lacking = lanes_lacking()
  if lacking then return {'LANES', lacking} end
  if current ~= holder then -- a desk that lost data may still count it as waiting
    redis.call('ZREM', waiting, ID)
    redis.call('ZREM', waiting_accounts, account .. ' ' .. ID)
  end
  redis.call('HSET', OF, 'holder', holder, 'until', now + lease_ms)
  hold_lanes(redis.call('HGET', OF, 'lane'), now + lease_ms)
  count_stored(a, bytes, expires)
  return {is_far_above(a, account, stored_limit) and 'FAR' or 'OK'}
end

need_whole_slot()
local replies, i, at = {}, 1, 1
while i <= #KEYS do
  replies[#replies + 1] = reply_of(hold, i, at)
  i, at = i + 8 + 4 * ARGV[at + 14], at + 15 + ARGV[at + 14]
end
return replies
