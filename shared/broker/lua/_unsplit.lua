-- Names of keys of the desk, for the scripts of a bucket that are not yet split into steps of one slot each.

local OF
local function account_keys(account)
  OF = 'hr:{desk}:of:' .. ID
  local keys = {above_limit = 'hr:{desk}:above_limit'}
  for _, kind in ipairs({'used', 'streams', 'stored', 'kept', 'sources', 'removed'}) do
    keys[kind] = 'hr:{desk}:' .. kind .. ':' .. (account or '')
  end
  return keys
end

local function stop_waiting(account)
  redis.call('ZREM', 'hr:{desk}:waiting', ID)
  redis.call('ZREM', 'hr:{desk}:waiting_accounts', (account or '') .. ' ' .. ID)
end
