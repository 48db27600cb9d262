#!lua flags=allow-oom
-- Publish to every other node that has devices in a session.
--
-- KEYS  1 n  ZSET node -> lease ms
-- ARGV  1 our node   2 payload
-- Returns the number of nodes told.

local clock = redis.call('TIME')
local now = clock[1] .. string.format('%03d', math.floor(clock[2] / 1000))
local nodes, told = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf'), 0
for j = 1, #nodes do
  if nodes[j] ~= ARGV[1] then
    redis.call('PUBLISH', 'n:' .. nodes[j], ARGV[2])
    told = told + 1
  end
end
return told
