#!lua
-- Keep a recording of a voice channel.
--
-- KEYS  1 voice:{bucket}:rh:<id>  HASH: recording id -> the recording
--       2 voice:{bucket}:rz:<id>  ZSET: recording id -> ms at which it was ready
-- ARGV  1 recording id   2 the recording   3 ms   4 ttl ms   5 how many are kept
-- Returns 1, or 0: it was known; the newer data is kept.

local call = redis.call
local known = call('HEXISTS', KEYS[1], ARGV[1])
call('ZADD', KEYS[2], ARGV[3], ARGV[1])
call('HSET', KEYS[1], ARGV[1], ARGV[2])
local many = call('ZCARD', KEYS[2]) - ARGV[5]
if many > 0 then
  local old = call('ZRANGE', KEYS[2], 0, many - 1)
  call('ZREMRANGEBYRANK', KEYS[2], 0, many - 1)
  call('HDEL', KEYS[1], unpack(old))
end
for i = 1, 2 do call('PEXPIRE', KEYS[i], ARGV[4]) end
return 1 - known
