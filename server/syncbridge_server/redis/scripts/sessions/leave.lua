#!lua flags=allow-oom
-- A connection ended. A late close of an old connection changes nothing: conn is compared.
--
-- KEYS  1 p  ZSET device -> lease ms         2 v  HASH device -> info
--       3 o  HASH device -> "conn fence node"     4 n  ZSET node -> lease ms
-- ARGV  1 device   2 conn; "" stands for "is offline"   3 node   4 forget (0 or 1)
--       5 last (0 or 1): this node has no other device here   6 reason
-- Returns {changed (0 or 1), now ms, number of other nodes, fence of the connection}. An offline
-- device keeps its place in `p` with the time at which it left, so that the registry knows when it
-- was last seen. The other nodes are told with "P", see messages.py.

local clock = redis.call('TIME')
local now = clock[1] .. string.format('%03d', math.floor(clock[2] / 1000))
local current = redis.call('HGET', KEYS[3], ARGV[1])
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('HLEN', KEYS[2])  -- for its type: nothing may fail after the first write
local nodes, peers = redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. now, '+inf'), 0
local changed
if ARGV[2] == '' then
  changed = lease and not current
else
  local prefix = ARGV[2] .. ' '
  changed = current and string.sub(current, 1, #prefix) == prefix
end
local fence = string.match(current or '', ' (%d+) ') or '0'
if ARGV[5] == '1' then redis.call('ZREM', KEYS[4], ARGV[3]) end
if changed then
  redis.call('HDEL', KEYS[3], ARGV[1])
  if ARGV[4] == '1' then
    redis.call('ZREM', KEYS[1], ARGV[1])
    redis.call('HDEL', KEYS[2], ARGV[1])
  elseif lease and tonumber(lease) > tonumber(now) then
    redis.call('ZADD', KEYS[1], now, ARGV[1])
  end
end
local news = 'P' .. string.sub(KEYS[1], 4, -4) .. ' ' .. ARGV[6] .. ' ' .. fence .. ' 0 '
    .. #ARGV[1] .. '\n' .. ARGV[1]
for j = 1, #nodes do
  if nodes[j] ~= ARGV[3] then
    peers = peers + 1
    if changed and current then redis.call('PUBLISH', 'n:' .. nodes[j], news) end
  end
end
return {changed and 1 or 0, tonumber(now), peers, tonumber(fence)}
