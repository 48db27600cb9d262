#!lua flags=allow-oom
-- Acquire or release a lock.
--
-- KEYS  1 voice:{bucket}:l:<purpose>:<id>  STRING: token of the holder
-- ARGV  1 token   2 life ms; 0 to give it back
-- Returns 1: acquired or released. 0: another holds it, or nobody.

local call = redis.call
local holder = call('GET', KEYS[1])
if ARGV[2] == '0' then
  return holder == ARGV[1] and call('UNLINK', KEYS[1]) or 0
end
if holder and holder ~= ARGV[1] then return 0 end
call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
