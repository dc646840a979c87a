-- Messages to gateways, which come before the rest of every script of streams.

-- What append.lua sends at its end: by the gateway, the lines and events, the size of the events, and the places of
-- their streams in KEYS. Other scripts have nil, and send each entry at once.
local messages
-- Limit of a message. Events beyond it are not in the message, and the gateway reads them from the tail.
local MESSAGE_BYTES = 262144

-- Returns the error, if there is one.
local function publish(gateway, message)
  local sent = redis.pcall('SPUBLISH', 'hr:gateway:' .. gateway, table.concat(message))
  return type(sent) == 'table' and sent
end

-- Notifies `gateways` (separated by spaces) of new events of the stream whose state is KEYS[at]: first .. last, all of
-- `epoch`. An entry is the line `<id> <epoch> <first> <size of each>` and the events, or the line `<id>` if they do not
-- fit. Event q is ARGV[base + q].
local function notify_gateways(at, gateways, epoch, first, last, base)
  if not gateways or gateways == '' then return end
  local id, sizes, bytes = string.match(KEYS[at], ':(%x+):state$'), '', 0
  for q = base + first, base + last do
    sizes = sizes .. ' ' .. #ARGV[q]
    bytes = bytes + #ARGV[q]
    if bytes > MESSAGE_BYTES then break end
  end
  local line = id .. ' ' .. epoch .. ' ' .. first .. sizes .. '\n'
  for gateway in string.gmatch(gateways, '%S+') do
    local message = messages and messages[gateway] or {bytes = 0, senders = {}}
    message.senders[#message.senders + 1] = at
    if last >= first and message.bytes + bytes <= MESSAGE_BYTES then
      message.bytes = message.bytes + bytes
      message[#message + 1] = line
      for q = base + first, base + last do message[#message + 1] = ARGV[q] end
    else
      message[#message + 1] = id .. '\n'
    end
    if messages then messages[gateway] = message else
      local failed = publish(gateway, message)
      if failed then error(failed) end
    end
  end
end
