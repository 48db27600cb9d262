#!lua flags=allow-oom
-- Enter sessions into the presence index, to be checked when a lease given now expires.
--
-- KEYS  1 px:{bucket}  ZSET session -> when a lease there may be over, ms
-- ARGV  1 presence ms   2.. sessions
-- An entry that is due earlier stays as it is.

local clock = redis.call('TIME')
local now = clock[1] .. string.format('%03d', math.floor(clock[2] / 1000))
local due = string.format('%.0f', now + ARGV[1])
for j = 2, #ARGV do redis.call('ZADD', KEYS[1], 'LT', due, ARGV[j]) end
redis.call('PEXPIRE', KEYS[1], 604800000)
return 0
