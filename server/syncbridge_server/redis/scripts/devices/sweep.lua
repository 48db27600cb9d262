#!lua flags=allow-oom
-- Take devices offline whose lease is over. The leases are compared here, again: one that was
-- renewed, or whose device has come back on another node, since somebody thought so, stays.
--
-- KEYS  1 p  ZSET device -> lease ms   2 o  HASH device -> "conn fence node"   3 n  nodes
-- ARGV  1 presence ms, to reckon when a device was seen last
-- Returns {number that left, earliest lease of those that stay or 0}.
-- Every node with devices here is told with "P", the caller's too: whoever made the change, and
-- whether or not its answer arrives, each node hears of it once.

local call, format = redis.call, string.format
local clock = call('TIME')
local now_text = clock[1] .. format('%03d', math.floor(clock[2] / 1000))
local now = tonumber(now_text)
local leases = call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local live = call('HGETALL', KEYS[2])
local nodes = call('ZRANGEBYSCORE', KEYS[3], '(' .. now_text, '+inf')
local deadline, over, due = {}, {}, 0
for j = 1, #leases, 2 do deadline[leases[j]] = tonumber(leases[j + 1]) end
for j = 1, #live, 2 do
  local device = live[j]
  if device ~= '' and device ~= '\n' then
    local lease = deadline[device] or 0
    if lease <= now then
      over[#over + 1] = j
    elseif due == 0 or lease < due then
      due = lease
    end
  end
end
for k = 1, #over do
  local device = live[over[k]]
  local fence = string.match(live[over[k] + 1], ' (%d+) ') or '0'
  call('HDEL', KEYS[2], device)
  if deadline[device] then
    call('ZADD', KEYS[1], format('%.0f', deadline[device] - tonumber(ARGV[1])), device)
  end
  local news = 'P' .. string.sub(KEYS[1], 4, -4) .. ' timeout ' .. fence .. ' 0 ' .. #device
      .. '\n' .. device
  for j = 1, #nodes do call('PUBLISH', 'n:' .. nodes[j], news) end
end
return {#over, due}
