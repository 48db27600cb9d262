#!lua flags=allow-oom
-- Nobody has read events for long, and there is no endpoint: they are not written any more.
--
-- KEYS  1 ev:{events}:state   2 ev:{events}:endpoints  HASH id -> endpoint   3 ev:{events}:known
-- Returns 1 when that is so now.

local call = redis.call
local clock = call('TIME')
local ends = call('HGET', KEYS[1], 'until')
if not ends then return 1 end
if tonumber(ends) > clock[1] * 1000 + math.floor(clock[2] / 1000) then return 0 end
if call('HLEN', KEYS[2]) > 0 then return 0 end
call('UNLINK', KEYS[1], KEYS[3])
return 1
