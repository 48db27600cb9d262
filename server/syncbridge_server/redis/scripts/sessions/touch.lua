#!lua flags=allow-oom
-- Enter a node again in a session in which it has devices, and renew the life of the session.
-- Format 2; docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH   2 ns:T:<node>  SET of the node's sessions in this bucket
--       with old data last the old meta key, which is not looked for
-- ARGV  1 flags   2 node   3.. device, conn, device, conn ...
-- Returns {version, epoch, lineage, devices online, newest fence, lost}; 0 and "" when the session
-- does not exist.
-- A late touch does not bring back a device that has left, was removed or has moved; such devices
-- are in `lost`: {device, its live record or "", the least fence with which it may write}.

local TTL, WAITING_TTL = 604800000, 3600000
local call, format, match = redis.call, string.format, string.match
local HOUR = 3600000
local own, node = string.sub(KEYS[1], 1, -2), ARGV[2]
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local meta = call('HMGET', KEYS[1], 'v', 'e', 'l', 'b', 'g', 't', 's')
local exists, here, lost = meta[1] ~= false, false, {}
for j = 3, #ARGV, 2 do
  local device = ARGV[j]
  local record = call('HGET', own .. 'o', device) or ''
  local where = match(record, '^%d+ %d+ (%S+) ')
  if where == node then
    here = true
  else
    lost[#lost + 1] = device
    lost[#lost + 1] = where and where ~= '-' and match(record, '^[^\n]*') or ''
    lost[#lost + 1] = tonumber(call('HGET', KEYS[1], 'x' .. device) or 0)
  end
end
if here then
  call('SADD', KEYS[2], string.sub(KEYS[1], -38, -3))
  call('PEXPIRE', KEYS[2], TTL + HOUR)
  local nodes = meta[7] or ''
  if not string.find(' ' .. nodes .. ' ', ' ' .. node .. ' ', 1, true) then
    call('HSET', KEYS[1], 's', nodes == '' and node or nodes .. ' ' .. node)
  end
end
local late = exists and now - tonumber(meta[6] or 0) > HOUR
if late then call('HSET', KEYS[1], 't', now) end
if late or not exists then
  local expiry = format('%.0f', now + (exists and TTL or WAITING_TTL))
  for letter in string.gmatch(exists and 'mdkjcozw' or 'mo', '.') do
    call('PEXPIREAT', own .. letter, expiry)
  end
end
return {tonumber(meta[1] or 0), meta[2] or '', meta[3] or '', tonumber(meta[4] or 0),
    tonumber(meta[5] or 0), lost}
