#!lua
-- Set details of a call session; those that are not named stay.
--
-- KEYS  1 call, 2 x: as in call_create
-- ARGV  1 id   2 ttl ms   3 most bytes of details   4.. name and JSON text of each
-- Returns {status, the hash}: OK, NOT_FOUND, TOO_LARGE (nothing was set). The bytes are those of
-- syncbridge.calls.details_bytes.

local OK, NOT_FOUND, TOO_LARGE = 0, 4, 6
local call, format = redis.call, string.format
local held = call('HMGET', KEYS[1], 'n', 'u')
call('ZCARD', KEYS[2])
if not held[1] then return {NOT_FOUND} end
local size = tonumber(held[1])
for i = 4, #ARGV, 2 do
  local old = call('HSTRLEN', KEYS[1], '.' .. ARGV[i])
  if old == 0 then size = size + #ARGV[i] + 4 end
  size = size + #ARGV[i + 1] - old
end
if size > tonumber(ARGV[3]) then return {TOO_LARGE} end
local clock = call('TIME')
local now = tonumber(clock[1] .. format('%03d', math.floor(clock[2] / 1000)))
local forget = format('%.0f', now + ARGV[2])
for i = 4, #ARGV, 2 do call('HSET', KEYS[1], '.' .. ARGV[i], ARGV[i + 1]) end
call('HSET', KEYS[1], 'n', size, 'u', format('%.0f', math.max(now, tonumber(held[2]))))
call('PEXPIREAT', KEYS[1], forget)
call('ZADD', KEYS[2], forget, ARGV[1])
return {OK, call('HGETALL', KEYS[1])}
