#!lua flags=allow-oom
-- Phase one of a sweep: claim the sessions of a bucket in which a lease may have expired.
--
-- KEYS  1 px:{bucket}    ZSET session -> when a lease there may be over, ms
--       2 px:{bucket}:c  ZSET session -> until when it is claimed, ms
--       3 px:{bucket}:l  which node sweeps this bucket at present
-- ARGV  1 node   2 lease ms   3 claim ms   4 most sessions
-- Returns the sessions. They are moved out of the index, so that a device that joins meanwhile
-- enters its session anew. Claims that were not released in time are taken over: their sweeper
-- died.

local call = redis.call
local holder = call('GET', KEYS[3])
if holder and holder ~= ARGV[1] then return {} end
local clock = call('TIME')
local now = clock[1] .. string.format('%03d', math.floor(clock[2] / 1000))
local left = call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[4])
local due = call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[4] - #left)
call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
for j = 1, #due do
  call('ZREM', KEYS[1], due[j])
  left[#left + 1] = due[j]
end
local until_ms = string.format('%.0f', now + ARGV[3])
for j = 1, #left do call('ZADD', KEYS[2], until_ms, left[j]) end
if #left > 0 then call('PEXPIRE', KEYS[2], 604800000) end
return left
