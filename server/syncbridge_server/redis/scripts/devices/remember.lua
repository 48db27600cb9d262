#!lua
-- Note a user's activity in a session.
--
-- KEYS  1 u:{user}  ZSET session -> last activity ms
-- ARGV  1 session   2 ttl ms   3 most sessions of a user

local clock = redis.call('TIME')
local now = clock[1] .. string.format('%03d', math.floor(clock[2] / 1000))
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 0
