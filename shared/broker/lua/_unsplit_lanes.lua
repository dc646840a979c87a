-- Names of the keys of every lane, for the scripts of a bucket that are not yet split.
setmetatable(LANES, {__index = function(_, lane)
  local keys = {}
  for _, kind in ipairs({'running', 'parked', 'tokens', 'used'}) do keys[kind] = 'hr:{desk}:lane:' .. lane .. ':' .. kind end
  return keys
end})
