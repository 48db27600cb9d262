#!lua
-- Disable an endpoint and tell it, unless it was changed meanwhile.
--
-- KEYS  1 ev:{events}:endpoints  HASH id -> endpoint   2 e:{events}, as in prelude.lua
-- ARGV  1 id   2 the endpoint as it was   3 as it is to be   4 data of the event
-- Returns 1, or 0: it is another one, or gone.

local call = redis.call
if call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
call('XADD', KEYS[2], 'MAXLEN', '~', 4096, '*', 'k', 'endpoint.disabled', 'j', ARGV[4])
call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
