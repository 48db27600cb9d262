#!lua flags=allow-oom
-- Delete a call session.
--
-- KEYS  1 call, 2 x, 3..8 indexes: as in call_create
-- ARGV  1 id
-- Returns {status, the hash as it was}: OK, NOT_FOUND.

local OK, NOT_FOUND = 0, 4
local call = redis.call
local held = call('HGETALL', KEYS[1])
for i = 2, 8 do call('ZCARD', KEYS[i]) end
if #held == 0 then return {NOT_FOUND} end
call('UNLINK', KEYS[1])
for i = 2, 8 do call('ZREM', KEYS[i], ARGV[1]) end
return {OK, held}
