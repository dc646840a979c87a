-- Messages to gateways, which come before the rest of every script of streams.

-- What append.lua sends at its end: by the gateway, its entries, their size, and the places of their streams in KEYS.
-- Other scripts have nil, and send each entry at once.
local messages
-- Limit of a message. Events beyond it are not in the message, and the gateway reads them from the tail.
local MESSAGE_BYTES = 262144

-- Returns the error, if there is one.
local function publish(gateway, entries)
  local sent = redis.pcall('PUBLISH', 'hr:gateway:' .. gateway, table.concat(entries))
  return type(sent) == 'table' and sent
end

-- Notifies `gateways` (separated by spaces) of new events of the stream whose state is KEYS[at]: first .. last, all of
-- `epoch`. An entry is the line `<id> <epoch> <first> <size of each>` and the events, or the line `<id>` if they do not
-- fit. Event q is ARGV[base + q].
local function notify_gateways(at, gateways, epoch, first, last, base)
  if not gateways or gateways == '' then return end
  local id, bytes = string.match(KEYS[at], ':(%x+):state$'), 0
  local line = id .. ' ' .. epoch .. ' ' .. first
  for q = first, last do
    line = line .. ' ' .. #ARGV[base + q]
    bytes = bytes + #ARGV[base + q]
    if bytes > MESSAGE_BYTES then break end
  end
  local entry = bytes <= MESSAGE_BYTES and line .. '\n' .. table.concat(ARGV, '', base + first, base + last)
  for gateway in string.gmatch(gateways, '%S+') do
    local message = messages and messages[gateway] or {bytes = 0, senders = {}}
    local fits = entry and message.bytes + bytes <= MESSAGE_BYTES
    message[#message + 1] = fits and entry or id .. '\n'
    message.bytes = message.bytes + (fits and bytes or 0)
    message.senders[#message] = at
    if messages then messages[gateway] = message else
      local failed = publish(gateway, message)
      if failed then error(failed) end
    end
  end
end
