#!lua flags=allow-oom
-- Put a packed state in the place of the state that it was made of.
--
-- KEYS  1 m  meta   2 d  data   3 k  versions   4 z  STRING packed state
-- ARGV  1 version   2 epoch   3 packed state
-- Returns 1, or 0 when there was a write since the state was read, or somebody was quicker.
-- Mutation ids, journal, devices and the version itself stay where they are.

local call = redis.call
local meta = call('HMGET', KEYS[1], 'v', 'e', 'z')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] or meta[3] then return 0 end
local left = call('PTTL', KEYS[1])
if left > 0 then
  call('SET', KEYS[4], ARGV[3], 'PX', left)
else
  call('SET', KEYS[4], ARGV[3])
end
call('HSET', KEYS[1], 'z', '1')
call('UNLINK', KEYS[2], KEYS[3])
return 1
