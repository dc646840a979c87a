#!lua
-- Makes a queued stream: index, idempotency entry, state and tombstone, in one step.
-- ARGV: 1 body hash, 2 retention ms, 3 tombstone ms, 4 ms until the sweep looks for its job, 5 reader lease ms,
--       6.. field, value, … (`principal` and `on_disconnect` must be among them)
-- Answers {'CREATED'}, {'KNOWN', id, body hash} where the idempotency key was used before, or {'EXISTS'}.

if IDEMPOTENCY then
  local known = redis.call('GET', IDEMPOTENCY)
  if known then
    local id, hash = string.match(known, '^(%x+) (%x+)$')
    return {'KNOWN', id, hash}
  end
end
if redis.call('EXISTS', STATE) == 1 then return {'EXISTS'} end

redis.call('HSET', STATE, 'status', 'queued', 'epoch', 0, 'log_epoch', 0, 'lead', 0, 'attempt', 0, 'live_until', 0,
  'polled_until', 0, 'created', now, unpack(ARGV, 6))
-- Who asks is taken for a reader until a gateway says more; a stream that nobody can abandon needs none.
if redis.call('HGET', STATE, 'on_disconnect') == 'cancel' then redis.call('HSET', STATE, 'live_until', now + ARGV[5]) end
redis.call('ZADD', INDEX, now + ARGV[4], ID)
if IDEMPOTENCY then redis.call('SET', IDEMPOTENCY, ID .. ' ' .. ARGV[1]) end
redis.call('SET', TOMBSTONE, 'live ' .. redis.call('HGET', STATE, 'principal'))
keep_until(now + ARGV[2], tonumber(ARGV[3]))
return {'CREATED'}
