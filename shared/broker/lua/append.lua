#!lua
-- Adds events to the tails of some streams of one route, as far as their windows and tails allow. Events that are
-- already in a log are skipped.
-- KEYS: 1 state, 2 log, 3 tail (of each stream)
-- ARGV: 1 epoch, 2 holder, 3 first_seq (seq of the first event given), 4 window (in events; 0: none, for a resend),
--       5 cap, 6 lineage (of the log that the epoch continues, see epoch_of; '': none), 7 provider_cursor (where the
--       provider's answer is after the last event; '-': unknown; '': the provider does not store it),
--       8 count (number of events), 9 events… (all this of each stream)
-- Status: running → running
-- Replies for each stream, in this order of checks: MISSING, CLOSED, SUPERSEDED, BEHIND, GAP n, then OK n, UNPACKED n
-- (the tail is full: pack.lua comes first) or FULL n (the window is); or an error, which concerns that stream alone.

local function append(i, at)
  choose_stream(i, i + 2)
  local epoch, holder, first_seq, window, cap, lineage, provider_cursor, count = unpack(ARGV, at, at + 7)
  epoch, first_seq, window, cap = tonumber(epoch), tonumber(first_seq), tonumber(window), tonumber(cap)
  count = tonumber(count)
  local s = load_for_writer()
  local refusal = refuse(s, epoch, holder)
  if refusal then return refusal end
  local n = log_length(s, epoch, lineage)
  if first_seq > n + 1 then return reply('GAP', n, s) end

  local last = first_seq + count - 1
  local upto, before_tail = last, n > 0 and last_in_chunks(s.chunks) or 0
  -- A stream that continues without readers has no window while no live reader is connected.
  if window > 0 and (s.on_disconnect == 'cancel' or has_live_reader(s)) then
    local lead = (tonumber(s.log_epoch) == epoch or n > 0) and s.lead or 0
    upto = math.min(last, lead + window)
  end
  -- The tail holds no more until its oldest events are in chunks; those of earlier epochs go together (rule E13).
  local fits = math.max(before_tail + cap, tonumber(string.match(lineage, '%d+$') or 0))
  local is_tail_full = fits < upto
  upto = math.min(upto, fits)
  -- A part of an append has no place in the provider's answer, so that no worker could resume there.
  if upto < last and provider_cursor ~= '' and count <= window then upto = math.min(upto, n) end
  if upto > n then
    need_whole_slot()
    local is_first = tonumber(s.log_epoch) ~= epoch
    if is_first then note('output:') end
    begin_log(s, epoch, n, lineage)
    write_tail(epoch, n + 1, upto, at + 8 - first_seq, lineage)
    if n == before_tail then redis.call('PEXPIREAT', TAIL, redis.call('HGET', STATE, 'expires')) end
    if provider_cursor ~= '' then
      redis.call('HSET', STATE, 'provider_cursor', upto == last and provider_cursor or '-')
    elseif is_first then
      redis.call('HDEL', STATE, 'provider_cursor')
    end
  end
  if upto < last and is_tail_full then return reply('UNPACKED', math.max(n, upto), s) end
  if upto < last then
    redis.call('HSET', STATE, 'full', 1)
    return reply('FULL', math.max(n, upto), s)
  end
  return reply('OK', math.max(n, upto), s)
end

for i, at in pairs(rest) do replies[(i + 2) / 3] = reply_of(append, i, at) end
return with_messages_sent(replies)
