#!lua
-- Give a frozen session its state back.
--
-- KEYS  1 m  meta   2 d  data   3 k  versions   4 z  STRING packed state
-- ARGV  1 version   2 epoch   3 number of data arguments   4.. key, value, ..., version, key, ...
-- Returns 1; 0 when it is not frozen (somebody was quicker); 2 when it is frozen at another
-- version, because it was thawed, written and frozen again since the packed state was read.

local call = redis.call
local meta = call('HMGET', KEYS[1], 'v', 'e', 'z')
if not meta[3] then return 0 end
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return 2 end
local left = call('PTTL', KEYS[1])
local middle = 3 + tonumber(ARGV[3])
-- An even number, so that no pair is cut, and below the 8,000 values that `unpack` can take.
local CHUNK = 3000
call('DEL', KEYS[2], KEYS[3])
for from = middle + 1, #ARGV, CHUNK do
  call('ZADD', KEYS[3], unpack(ARGV, from, math.min(from + CHUNK - 1, #ARGV)))
end
for from = 4, middle, CHUNK do
  call('HSET', KEYS[2], unpack(ARGV, from, math.min(from + CHUNK - 1, middle)))
end
if left > 0 then
  call('PEXPIRE', KEYS[2], left)
  call('PEXPIRE', KEYS[3], left)
end
call('HDEL', KEYS[1], 'z')
call('DEL', KEYS[4])
return 1
