#!lua flags=allow-oom
-- Take devices offline whose lease is over. The leases are compared here, again: one that was
-- renewed, or whose device has come back on another node, since somebody thought so, stays.
-- Format 2; docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH; with old data last the old meta key, which is not looked for
-- ARGV  1 flags   2 presence ms, to reckon when a device was seen last
-- Returns {number that left, earliest lease of those that stay or 0}.
-- Every node with devices here is told, the caller's too: whoever made the change, and whether or
-- not its answer arrives, each node hears of it once. A node without a device then is not told
-- of the session any more.

local TTL = 604800000
local call, format, match = redis.call, string.format, string.match
local HOUR = 3600000
local own = string.sub(KEYS[1], 1, -2)
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local meta = call('HMGET', KEYS[1], 'v', 's', 'g', 't')
local leases = call('ZRANGE', own .. 'p', 0, -1, 'WITHSCORES')
local all = call('HGETALL', own .. 'o')
local lease_of, over, due, online, alive, died = {}, {}, 0, 0, {}, {}
for j = 1, #leases, 2 do lease_of[leases[j]] = tonumber(leases[j + 1]) end
for j = 1, #all, 2 do
  local where = match(all[j + 1], '^%d+ %d+ (%S+) ')
  if where and where ~= '-' then
    local lease = lease_of[all[j]] or 0
    if lease <= now then
      over[#over + 1] = j
      died[where] = true
    else
      online, alive[where] = online + 1, true
      if due == 0 or lease < due then due = lease end
    end
  end
end
if #over == 0 then return {0, due} end

local channel, nodes = match(KEYS[1], '^s:({[^}]*}:)'), meta[2] or ''
local kept, news = {}, {}
for name in string.gmatch(nodes, '%S+') do
  if alive[name] or not died[name] then kept[#kept + 1] = name end
end
local left = online + #over
for k = 1, #over do
  local device, record = all[over[k]], all[over[k] + 1]
  local fence, info = match(record, '^(%d+) [^\n]*\n(.*)$')
  local seen = math.max((lease_of[device] or now) - tonumber(ARGV[2]), 0)
  call('HSET', own .. 'o', device, fence .. ' ' .. format('%.0f', seen) .. ' - -\n' .. info)
  call('ZREM', own .. 'p', device)
  left = left - 1
  news[k] = 'P2 ' .. string.sub(KEYS[1], -38, -3) .. ' timeout ' .. fence .. ' '
      .. (meta[1] or '0') .. ' ' .. left .. ' ' .. (meta[3] or '0') .. ' ' .. #device .. '\n'
      .. device
end
call('HSET', KEYS[1], 'b', online)
if #kept == 0 then
  call('HDEL', KEYS[1], 's')
else
  call('HSET', KEYS[1], 's', table.concat(kept, ' '))
end
if meta[1] and now - tonumber(meta[4] or 0) > HOUR then
  call('HSET', KEYS[1], 't', now)
  for letter in string.gmatch('mdkjcozp', '.') do
    call('PEXPIREAT', own .. letter, format('%.0f', now + TTL))
  end
end
for k = 1, #news do
  for name in string.gmatch(nodes, '%S+') do redis.pcall('SPUBLISH', channel .. name, news[k]) end
end
return {#over, due}
