#!lua flags=allow-oom
-- Sign a device out: delete it, and bar its live connection from writing. Format 2;
-- docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH; with old data last the old meta key
-- ARGV  1 flags: 1 owner check, 8 old data   2 user   3 device   4 our node
-- Returns {status, fence of the connection that it had or 0, version, epoch, lineage}.
-- The other nodes are told; the one that has the socket closes it.

local MOST_BARRED = 320
local OK, NOT_FOUND, FORBIDDEN, OLD, NO_DEVICE = 0, 4, 5, 14, 20
local call, format, sub, match = redis.call, string.format, string.sub, string.match
local flags, device = tonumber(ARGV[1]), ARGV[3]
local own, barred = sub(KEYS[1], 1, -2), 'x' .. device
local meta = call('HMGET', KEYS[1], 'v', 'u', 'r', 'e', 'l', 's', 'b', 'g', barred)
if not meta[1] and flags % 16 > 7 and call('EXISTS', KEYS[#KEYS]) == 1 then return {OLD} end
local current = call('HGET', own .. 'o', device)
local owner = meta[2] or meta[3]
if not meta[1] and call('HLEN', own .. 'o') == 0 then return {NOT_FOUND} end
if flags % 2 == 1 and owner ~= ARGV[2] then return {owner and FORBIDDEN or NOT_FOUND} end
if not current then return {NO_DEVICE} end
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local fence, node = match(current, '^(%d+) %d+ (%S+) ')
local live, online = node ~= '-', tonumber(meta[7] or 0)

call('HDEL', own .. 'o', device)
local place = {OK, tonumber(fence), tonumber(meta[1] or 0), meta[4] or '', meta[5] or ''}
if live then
  online = math.max(online - 1, 0)
  local least = format('%.0f', math.max(now, tonumber(meta[8] or 0) + 1))
  call('HSET', KEYS[1], 'b', online, 'g', least)
  meta[8] = least
  call('HSET', KEYS[1], barred, least)
  if call('HLEN', KEYS[1]) > MOST_BARRED then
    -- The devices barred longest ago are dropped: their sockets are long closed.
    local all, count, oldest, lowest = call('HGETALL', KEYS[1]), 0, nil, nil
    for j = 1, #all, 2 do
      if sub(all[j], 1, 1) == 'x' then
        count = count + 1
        if not lowest or tonumber(all[j + 1]) < lowest then
          oldest, lowest = all[j], tonumber(all[j + 1])
        end
      end
    end
    if count > MOST_BARRED then call('HDEL', KEYS[1], oldest) end
  end
elseif meta[9] then
  -- Offline; but after a handoff it may still hold a socket that reads.
  fence = meta[9]
  place[2] = tonumber(fence)
else
  place[2] = 0
  return place
end
--@ if live then told_device('removed', owner or '', device, online) end
local channel, told = match(KEYS[1], '^s:({[^}]*}:)'), {[ARGV[4]] = true}
local news = 'P2 ' .. sub(KEYS[1], -38, -3) .. ' removed ' .. fence .. ' ' .. (meta[1] or '0')
    .. ' ' .. online .. ' ' .. (meta[8] or '0') .. ' ' .. #device .. '\n' .. device
for name in string.gmatch((meta[6] or '') .. ' ' .. node, '%S+') do
  if name ~= '-' and not told[name] then
    told[name] = true
    redis.pcall('SPUBLISH', channel .. name, news)
  end
end
return place
