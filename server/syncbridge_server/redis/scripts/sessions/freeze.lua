#!lua flags=allow-oom
-- Replace a session's state by its packed form. Format 2;
-- docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH
-- ARGV  1 version   2 epoch   3 lineage   4 packed state
-- Returns 1, or 0 when there was a write since the state was read, or another node was faster.
-- Devices, numbers of updates, the place and the newest entries of the journal stay.

local KEPT = 32
local call, own = redis.call, string.sub(KEYS[1], 1, -2)
local meta = call('HMGET', KEYS[1], 'v', 'e', 'l', 'z')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] or meta[3] ~= ARGV[3] then return 0 end
if meta[4] == '1' or meta[4] == '3' then return 0 end
local left = call('PTTL', KEYS[1])
if left > 0 then
  call('SET', own .. 'z', ARGV[4], 'PX', left)
else
  call('SET', own .. 'z', ARGV[4])
end
call('HSET', KEYS[1], 'z', meta[4] == '2' and '3' or '1')
call('UNLINK', own .. 'd', own .. 'k', own .. 'c', own .. 'w')
redis.pcall('LTRIM', own .. 'j', -KEPT, -1)
return 1
