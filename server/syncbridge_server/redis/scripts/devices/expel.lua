#!lua flags=allow-oom
-- Sign a device out: forget it, and bar its live connection from writing.
--
-- KEYS  1 m  meta   2 p  leases   3 v  infos   4 o  device -> "conn fence node"; "\n" newest fence
--       5 n  ZSET node -> lease ms
-- ARGV  1 user   2 owner check (0 or 1)   3 device   4 our node
-- Returns {status, fence of the connection that it had or 0, version}.
-- The other nodes are told with "P", see messages.py; the one that has the socket closes it.

local OK, NOT_FOUND, FORBIDDEN, NO_DEVICE = 0, 4, 5, 20
local call, format = redis.call, string.format
local meta = call('HMGET', KEYS[1], 'v', 'u')
local current = call('HMGET', KEYS[4], ARGV[3], '', '\n')
local known = call('HEXISTS', KEYS[3], ARGV[3]) == 1
call('ZCARD', KEYS[2])  -- for its type: nothing may fail after the first write
local owner = meta[2] or current[2]
if not meta[1] and call('HLEN', KEYS[3]) == 0 then return {NOT_FOUND} end
if ARGV[2] == '1' and owner ~= ARGV[1] then return {owner and FORBIDDEN or NOT_FOUND} end
if not known and not current[1] then return {NO_DEVICE} end
local clock = call('TIME')
local now = clock[1] .. format('%03d', math.floor(clock[2] / 1000))
local nodes = call('ZRANGEBYSCORE', KEYS[5], '(' .. now, '+inf')

call('HDEL', KEYS[4], ARGV[3])
call('HDEL', KEYS[3], ARGV[3])
call('ZREM', KEYS[2], ARGV[3])
local fence, node
if current[1] then
  fence, node = string.match(current[1], ' (%d+) (%S+)$')
else
  -- Offline; but after a handoff it may still hold a socket that reads.
  fence = call('HGET', KEYS[1], 'x' .. ARGV[3])
  if not fence then return {OK, 0, tonumber(meta[1] or 0)} end
end
local least = format('%.0f', math.max(tonumber(now), tonumber(current[3] or 0) + 1))
if current[1] and current[3] then call('HSET', KEYS[4], '\n', least) end
if meta[1] and current[1] then
  call('HSET', KEYS[1], 'x' .. ARGV[3], least)
  if call('HLEN', KEYS[1]) > 320 then
    -- Devices that were barred longest ago are forgotten: their sockets are long closed.
    local all, oldest, lowest = call('HGETALL', KEYS[1]), nil, nil
    for j = 1, #all, 2 do
      if string.sub(all[j], 1, 1) == 'x' and (not lowest or tonumber(all[j + 1]) < lowest) then
        oldest, lowest = all[j], tonumber(all[j + 1])
      end
    end
    if oldest then call('HDEL', KEYS[1], oldest) end
  end
end
local news = 'P' .. string.sub(KEYS[1], 4, -4) .. ' removed ' .. fence .. ' ' .. (meta[1] or '0')
    .. ' ' .. #ARGV[3] .. '\n' .. ARGV[3]
nodes[#nodes + 1] = node
local told = {[ARGV[4]] = true}
for j = 1, #nodes do
  if not told[nodes[j]] then
    told[nodes[j]] = true
    call('PUBLISH', 'n:' .. nodes[j], news)
  end
end
return {OK, tonumber(fence), tonumber(meta[1] or 0)}
