-- Budgets of API keys and of the server: money in nanos, and tokens; a UTC day and a UTC month. keys.py describes the hash
-- of an account. Its fields are `<period>:<what>`. A period is d<day since 1970> or m<months since March of the year 0>;
-- `what` is nanos, tokens (spent), reserved_nanos, reserved_tokens (of streams that are not settled yet), warned_nanos,
-- warned_tokens (1: the warning of that period was given).
-- Amounts are written as the texts that they came as: Lua's numbers print 14 digits, and are exact up to 2^53 only.
-- `of` has `budgets`, what is reserved, separated by spaces: `<account>:<tokens>:<nanos>:<day>`. Nanos are `-` if the money of
-- the stream is not counted, and begin with `=` if its cost may be in another currency: then the reserved amount stays.

local BUDGET_DAY, BUDGET_LIFE_MS, WARNED_FROM = math.floor(now / 86400000), 62 * 86400000, 0.8

-- The month of a day. Years begin in March here, so that a leap day is the last of its year.
local function month_of(day)
  day = day + 719468
  local era = math.floor(day / 146097)
  day = day - era * 146097
  local year = math.floor((day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365)
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  return (year + 400 * era) * 12 + math.floor((5 * day + 2) / 153)
end

local function periods_of(day) return {'m' .. month_of(day), 'd' .. day} end

-- Returns the budgets of a call: their keys begin at KEYS[key], their arguments at ARGV[at], each with account, tokens,
-- nanos, and the limits: nanos and tokens of the month, nanos and tokens of the day; 0: none.
local function budgets_of_call(key, at)
  local budgets = {}
  for i = key, #KEYS do
    local words = {}
    for word in string.gmatch(ARGV[at + i - key], '%S+') do words[#words + 1] = word end
    budgets[#budgets + 1] = {key = KEYS[i], account = words[1], tokens = words[2], nanos = words[3],
      limits = {{nanos = tonumber(words[4]), tokens = tonumber(words[5])}, {nanos = tonumber(words[6]), tokens = tonumber(words[7])}}}
  end
  return budgets
end

-- Returns the keys of budgets by account: they begin at KEYS[key], and the accounts at ARGV[at].
local function keys_of_budgets(key, at)
  local keys = {}
  for i, account in ipairs({unpack(ARGV, at)}) do keys[account] = KEYS[key + i - 1] end
  return keys
end

-- Returns the reply that refuses the stream, or nil; and the budgets that are nearly spent, as {key, field, word}.
local function check_budgets(budgets)
  local refused, near = nil, {}
  for i, period in ipairs(#budgets > 0 and periods_of(BUDGET_DAY) or {}) do
    for _, b in ipairs(budgets) do
      for _, kind in ipairs({'nanos', 'tokens'}) do
        local limit, more = b.limits[i][kind], tonumber(string.match(b[kind], '%d+') or 0)
        if limit > 0 and b[kind] ~= '-' then
          local spent, reserved = unpack(redis.call('HMGET', b.key, period .. ':' .. kind, period .. ':reserved_' .. kind))
          if more > 0 and (spent or 0) + (reserved or 0) + more > limit then
            refused = refused or {'BUDGET', b.account .. ':' .. period .. ':' .. kind, spent or '0', reserved or '0'}
          end
          if tonumber(spent or 0) >= WARNED_FROM * limit then
            near[#near + 1] = {b.key, period .. ':warned_' .. kind, b.account .. ':' .. period .. ':' .. kind}
          end
        end
      end
    end
  end
  return refused, near
end

-- Adds to a reply the budgets whose warning has not been given in their period.
local function add_warnings(reply, near)
  for _, each in ipairs(near) do
    if redis.call('HSETNX', each[1], each[2], 1) == 1 then reply[#reply + 1] = each[3] end
  end
  return reply
end

-- Forgets the days before yesterday and the months before the last, once a day.
local function forget_old_periods(key, periods)
  if redis.call('HEXISTS', key, periods[2] .. ':reserved_tokens') == 1 then return end
  local kept = {[periods[1]] = 1, [periods[2]] = 1, ['d' .. BUDGET_DAY - 1] = 1, ['m' .. month_of(BUDGET_DAY) - 1] = 1}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if not kept[string.match(field, '^%w+')] then redis.call('HDEL', key, field) end
  end
end

local function reserve_budgets(budgets)
  local periods, notes = #budgets > 0 and periods_of(BUDGET_DAY), {}
  for i, b in ipairs(budgets) do
    forget_old_periods(b.key, periods)
    for _, period in ipairs(periods) do
      redis.call('HINCRBY', b.key, period .. ':reserved_tokens', b.tokens)
      if b.nanos ~= '-' then redis.call('HINCRBY', b.key, period .. ':reserved_nanos', string.match(b.nanos, '%d+')) end
    end
    redis.call('PEXPIRE', b.key, BUDGET_LIFE_MS)
    notes[i] = table.concat({b.account, b.tokens, b.nanos, BUDGET_DAY}, ':')
  end
  if #notes > 0 then redis.call('HSET', OF, 'budgets', table.concat(notes, ' ')) end
end

-- Returns the accounts of the stream's budgets, separated by spaces, if the call lacks the key of one of them. `keys`: by
-- account. Then nothing is changed, and the caller repeats the call with them.
local function budgets_lacking(reserved, keys)
  local accounts, lacks = {}, false
  for account in string.gmatch(reserved or '', '([^%s:]+):%S+') do
    accounts[#accounts + 1] = account
    lacks = lacks or not keys[account]
  end
  return lacks and table.concat(accounts, ' ')
end

-- Replaces what a stream has `reserved` by what it used, in the periods of the reservation. `used`: tokens and nanos, texts;
-- false: as much as was reserved. `again`: the desk lost the stream, and so its reservation.
local function settle_budgets(reserved, keys, used, again)
  for account, tokens, mark, nanos, day in string.gmatch(reserved or '', '([^%s:]+):(%d+):([-=]?)(%d*):(%d+)') do
    local key, amounts = keys[account], {tokens = {tokens, used.tokens or tokens}}
    if mark ~= '-' then amounts.nanos = {nanos, mark == '' and used.nanos or nanos} end
    for _, period in ipairs(periods_of(tonumber(day))) do
      for kind, amount in pairs(amounts) do
        local field = period .. ':reserved_' .. kind
        if not again and amount[1] ~= '0' and redis.call('HEXISTS', key, field) == 1 then
          redis.call('HINCRBY', key, field, '-' .. amount[1])
        end
        redis.call('HINCRBY', key, period .. ':' .. kind, amount[2])
      end
    end
    redis.call('PEXPIRE', key, BUDGET_LIFE_MS)
  end
end
