#!lua
-- Adds events to the logs and tails of some streams of one route, as far as their windows allow. Events that are
-- already in a log are skipped.
-- KEYS: 1 state, 2 log, 3 tail (of each stream)
-- ARGV: 1 epoch, 2 holder, 3 first_seq (seq of the first event given), 4 window (in events; 0: none, for a resend),
--       5 cap, 6 lineage (of the log that the epoch continues, see epoch_of; '': none), 7 provider_cursor (where the
--       provider's answer is after the last event; '-': unknown; '': the provider does not store it),
--       8 count (number of events), 9 events… (all this of each stream)
-- Status: running → running
-- Replies for each stream, in this order of checks: MISSING, CLOSED, SUPERSEDED, BEHIND, GAP n, then OK n or FULL n;
-- or an error, which concerns that stream alone.

local function append(i, at)
  choose_stream(i, i + 2)
  local epoch, holder, first_seq, window, cap, lineage, provider_cursor, count = unpack(ARGV, at, at + 7)
  epoch, first_seq, window, count = tonumber(epoch), tonumber(first_seq), tonumber(window), tonumber(count)
  local s = load_for_writer()
  local refusal = refuse(s, epoch, holder)
  if refusal then return refusal end
  local n = log_length(s, epoch, lineage)
  if first_seq > n + 1 then return reply('GAP', n, s) end

  local last = first_seq + count - 1
  local upto = last
  -- A stream that continues without readers has no window while no live reader is connected.
  if window > 0 and (s.on_disconnect == 'cancel' or has_live_reader(s)) then
    local lead = (tonumber(s.log_epoch) == epoch or n > 0) and s.lead or 0
    upto = math.min(last, lead + window)
    -- A part of an append has no place in the provider's answer, so that no worker could resume there.
    if upto < last and provider_cursor ~= '' and count <= window then upto = math.min(upto, n) end
  end
  if upto > n then
    local is_first = tonumber(s.log_epoch) ~= epoch
    if is_first then note('output:') end
    write(s, epoch, n, upto, at + 8 - first_seq, tonumber(cap), lineage)
    if provider_cursor ~= '' then
      redis.call('HSET', STATE, 'provider_cursor', upto == last and provider_cursor or '-')
    elseif is_first then
      redis.call('HDEL', STATE, 'provider_cursor')
    end
  end
  if upto < last then
    redis.call('HSET', STATE, 'full', 1)
    return reply('FULL', math.max(n, upto), s)
  end
  return reply('OK', math.max(n, upto), s)
end

for i, at in pairs(rest) do replies[(i + 2) / 3] = reply_of(append, i, at) end
return with_messages_sent(replies)
