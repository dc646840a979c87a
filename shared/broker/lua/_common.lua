-- The common start of the scripts that write: the clock, and what is checked before the first write.
-- Times are milliseconds of Redis' own clock. A script checks everything before its first write.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Fails while the slot of the keys moves to another server key by key: there a command on a key that does not exist is
-- refused, also in the middle of a script that has deleted the key, or creates it (rule S15). The caller tries again.
local function need_whole_slot()
  local probe = redis.pcall('EXISTS', string.match(KEYS[1], '^.-}:') .. 'none')
  if type(probe) == 'table' then
    error(string.find(probe.err, 'ermission') and probe or {err = 'TRYAGAIN the slot is being moved'})
  end
end

-- Fails before the first write if the Redis user lacks a right that is needed later (rule S4): to one of the commands
-- (separated by spaces), to a key besides the first, or to the channels of gateways and workers.
local function need_rights(commands, keys)
  local missing
  for command in string.gmatch(commands, '%S+') do
    if not redis.acl_check_cmd(command, KEYS[1], KEYS[1], KEYS[1], KEYS[1]) then missing = "run '" .. command .. "'" end
  end
  for _, key in ipairs(keys) do
    if not redis.acl_check_cmd('DEL', key) then missing = "access the key '" .. key .. "'" end
  end
  for _, channel in ipairs({'hr:gateway:any', 'hr:worker:any'}) do
    if not redis.acl_check_cmd('SPUBLISH', channel, '') then missing = "access the channel '" .. channel .. "'" end
  end
  if missing then error({err = 'NOPERM this user has no permissions to ' .. missing}) end
  need_whole_slot()
end

-- Lets a key that several streams share live at least until `at`.
local function live_until(key, at)
  redis.call('PEXPIREAT', key, at, 'NX')
  redis.call('PEXPIREAT', key, at, 'GT')
end
