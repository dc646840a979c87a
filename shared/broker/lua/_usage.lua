-- Daily sums of the ledger: of all streams, and of one account. keys.py describes the keys, shared/broker/usage.py the fields
-- and the counts.

-- Adds the rows ARGV[first] .. ARGV[last] (day, field, counts; …) to the sums whose keys begin at KEYS[at], two of each day:
-- of all, and of the account. Counts are numbers, separated by spaces.
local function add_usage(at, first, last, life_ms)
  for row = first, last, 3 do
    local day, field, more = unpack(ARGV, row, row + 2)
    for key = at + 2 * day - 2, at + 2 * day - 1 do
      local counts, next_count = {}, string.gmatch(redis.call('HGET', KEYS[key], field) or '', '%d+')
      for count in string.gmatch(more, '%d+') do
        counts[#counts + 1] = string.format('%.0f', count + (next_count() or 0))
      end
      redis.call('HSET', KEYS[key], field, table.concat(counts, ' '))
      redis.call('PEXPIRE', KEYS[key], life_ms)
    end
  end
end
