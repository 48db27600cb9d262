#!lua flags=allow-oom
-- Delete a call session. Its states and their times stay beside it, until the call would have been
-- forgotten: who bills by them may come later than who deletes.
--
-- KEYS  1 call, 2 x, 3..8 indexes: as in call_create
--       9 gone:{bucket}:<id>  HASH as the call's, without details, and d "ms who" of the deletion
-- ARGV  1 id   2 who
-- Returns {status, the hash as it was}: OK, NOT_FOUND.

local OK, NOT_FOUND = 0, 4
local call, format = redis.call, string.format
local held = call('HGETALL', KEYS[1])
for i = 2, 8 do call('ZCARD', KEYS[i]) end
if #held == 0 then return {NOT_FOUND} end
local clock = call('TIME')
local now = clock[1] .. format('%03d', math.floor(clock[2] / 1000))
call('RENAME', KEYS[1], KEYS[9])
for i = 1, #held, 2 do
  if held[i]:sub(1, 1) == '.' then call('HDEL', KEYS[9], held[i]) end
end
call('HSET', KEYS[9], 'd', now .. ' ' .. ARGV[2])
for i = 2, 8 do call('ZREM', KEYS[i], ARGV[1]) end
return {OK, held}
