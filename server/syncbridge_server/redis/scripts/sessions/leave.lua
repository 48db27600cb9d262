#!lua flags=allow-oom
-- Note the end of a connection. A late close of an old connection changes nothing: conn is
-- compared. Format 2; docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH   2 ns:T:<node>  SET of the node's sessions in this bucket
--       with old data last the old meta key, which is not looked for
-- ARGV  1 flags: 16 forget, 32 this node has no other device here   2 device
--       3 conn; "" stands for "is offline"   4 node   5 reason
-- Returns {changed (0 or 1), now ms, nodes, fence of the connection, devices online}. An offline
-- device keeps its record, so that the registry knows when it was last seen.

local TTL = 604800000
local call, format, match = redis.call, string.format, string.match
local HOUR = 3600000
local flags, device, node = tonumber(ARGV[1]), ARGV[2], ARGV[4]
local own = string.sub(KEYS[1], 1, -2)
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local meta = call('HMGET', KEYS[1], 'v', 's', 'b', 'g', 't')
local current = call('HGET', own .. 'o', device) or ''
local fence, where, conn, info = match(current, '^(%d+) %d+ (%S+) (%S+)\n(.*)$')
local live = where and where ~= '-'
local changed
if ARGV[3] == '' then changed = where and not live else changed = live and conn == ARGV[3] end
call('SCARD', KEYS[2])  -- for its type: nothing may fail after the first write

local online, nodes = tonumber(meta[3] or 0), meta[2] or ''
if flags % 64 > 31 then
  call('SREM', KEYS[2], string.sub(KEYS[1], -38, -3))
  local kept = {}
  for name in string.gmatch(nodes, '%S+') do
    if name ~= node then kept[#kept + 1] = name end
  end
  local left = table.concat(kept, ' ')
  if left ~= nodes then
    nodes = left
    if nodes == '' then call('HDEL', KEYS[1], 's') else call('HSET', KEYS[1], 's', nodes) end
  end
end
if changed then
  if flags % 32 > 15 then
    call('HDEL', own .. 'o', device)
  else
    call('HSET', own .. 'o', device, fence .. ' ' .. format('%.0f', now) .. ' - -\n' .. info)
  end
  if live then
    online = math.max(online - 1, 0)
    call('HSET', KEYS[1], 'b', online)
  end
end
if meta[1] and now - tonumber(meta[5] or 0) > HOUR then
  call('HSET', KEYS[1], 't', now)
  for letter in string.gmatch('mdkjcozw', '.') do
    call('PEXPIREAT', own .. letter, format('%.0f', now + TTL))
  end
end
--@ if changed and live then
--@   told_device(ARGV[5], owner_of(), device, online)
--@ end
local list = {}
for name in string.gmatch(nodes, '%S+') do list[#list + 1] = name end
if changed and live then
  local channel = match(KEYS[1], '^s:({[^}]*}:)')
  local news = 'P2 ' .. string.sub(KEYS[1], -38, -3) .. ' ' .. ARGV[5] .. ' ' .. fence .. ' '
      .. (meta[1] or '0') .. ' ' .. online .. ' ' .. (meta[4] or '0') .. ' ' .. #device .. '\n'
      .. device
  for j = 1, #list do
    if list[j] ~= node then redis.pcall('SPUBLISH', channel .. list[j], news) end
  end
end
return {changed and 1 or 0, now, list, tonumber(live and fence or 0), online}
