#!lua flags=allow-oom
-- Take the devices of a dead node offline, in one session.
-- Format 2; docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH   2 ns:T:<dead node>  SET of its sessions in this bucket
--       with old data last the old meta key, which is not looked for
-- ARGV  1 flags   2 dead node   3 presence ms, to compute when a device was last seen   4 most
-- Returns {number that left, 1 if there are more of them}. Every node with devices here is
-- notified, including the caller and the dead node: so each node learns of the change once, whoever
-- made it and whether or not its answer arrives. A dead node that lives says hello again.
-- Afterwards it is no longer notified of the session.

local TTL = 604800000
local call, format, match = redis.call, string.format, string.match
local HOUR = 3600000
local own, dead, most = string.sub(KEYS[1], 1, -2), ARGV[2], tonumber(ARGV[4])
local sid = string.sub(KEYS[1], -38, -3)
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local meta = call('HMGET', KEYS[1], 'v', 's', 'g', 't', 'b')
local all, over, online = call('HGETALL', own .. 'o'), {}, 0
for j = 1, #all, 2 do
  local where = match(all[j + 1], '^%d+ %d+ (%S+) ')
  if where and where ~= '-' then
    online = online + 1
    if where == dead and #over < most then over[#over + 1] = j end
  end
end
call('SCARD', KEYS[2])  -- for its type: nothing may fail after the first write

local channel, nodes, kept = match(KEYS[1], '^s:({[^}]*}:)'), {}, {}
for name in string.gmatch(meta[2] or '', '%S+') do
  nodes[#nodes + 1] = name
  if name ~= dead then kept[#kept + 1] = name end
end
local seen, news = format('%.0f', math.max(now - tonumber(ARGV[3]), 0)), {}
for k = 1, #over do
  local device, record = all[over[k]], all[over[k] + 1]
  local fence, info = match(record, '^(%d+) [^\n]*\n(.*)$')
  call('HSET', own .. 'o', device, (fence or '0') .. ' ' .. seen .. ' - -\n' .. (info or '{}'))
  online = online - 1
  news[k] = 'P2 ' .. sid .. ' timeout ' .. (fence or '0') .. ' ' .. (meta[1] or '0') .. ' '
      .. online .. ' ' .. (meta[3] or '0') .. ' ' .. #device .. '\n' .. device
end
if #over > 0 then call('HSET', KEYS[1], 'b', online) end
local more = #over == most
if not more then
  if #kept == 0 then
    call('HDEL', KEYS[1], 's')
  elseif #kept < #nodes then
    call('HSET', KEYS[1], 's', table.concat(kept, ' '))
  end
  call('SREM', KEYS[2], sid)
end
if meta[1] and now - tonumber(meta[4] or 0) > HOUR then
  call('HSET', KEYS[1], 't', now)
  for letter in string.gmatch('mdkjcozw', '.') do
    call('PEXPIREAT', own .. letter, format('%.0f', now + TTL))
  end
end
--@ for k = 1, #over do told_device('timeout', owner_of(), all[over[k]], online) end
for k = 1, #news do
  for j = 1, #nodes do redis.pcall('SPUBLISH', channel .. nodes[j], news[k]) end
end
return {#over, more and 1 or 0}
