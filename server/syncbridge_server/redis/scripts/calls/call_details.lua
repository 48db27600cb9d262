#!lua
-- Set details of a call session, and remove those that are null; others stay.
--
-- KEYS  1 call, 2 x, 3 due: as 1, 2 and 9 in call_create
-- ARGV  1 id   2 ttl ms   3 ms until it is ended   4 most bytes of details
--       5 tag "created-writes" that it must have, or ""   6.. name and JSON text of each
-- Returns {status, the hash}: OK, NOT_FOUND, PRECONDITION (it has another tag), TOO_LARGE (nothing
-- was set). The bytes are those of syncbridge.calls.details_bytes.

local OK, NOT_FOUND, TOO_LARGE, PRECONDITION = 0, 4, 6, 16
local call, format = redis.call, string.format
local held = call('HMGET', KEYS[1], 'n', 'u', 's', 'c', 'v', 'l')
call('ZCARD', KEYS[2])
call('ZCARD', KEYS[3])
if not held[1] then return {NOT_FOUND} end
if ARGV[5] ~= '' and ARGV[5] ~= held[4] .. '-' .. (held[5] or 0) then
  return {PRECONDITION, call('HGETALL', KEYS[1])}
end
local size = tonumber(held[1])
for i = 6, #ARGV, 2 do
  local old, new = call('HSTRLEN', KEYS[1], '.' .. ARGV[i]), #ARGV[i + 1]
  local frame = #ARGV[i] + 4
  if ARGV[i + 1] == 'null' then new = -frame end
  if old == 0 then old = -frame end
  size = size + new - old
end
if size > tonumber(ARGV[4]) then return {TOO_LARGE} end
local clock = call('TIME')
local now = tonumber(clock[1] .. format('%03d', math.floor(clock[2] / 1000)))
local forget = format('%.0f', now + ARGV[2])
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] == 'null' then
    call('HDEL', KEYS[1], '.' .. ARGV[i])
  else
    call('HSET', KEYS[1], '.' .. ARGV[i], ARGV[i + 1])
  end
end
call('HSET', KEYS[1], 'n', size, 'u', format('%.0f', math.max(now, tonumber(held[2]))))
call('HINCRBY', KEYS[1], 'v', 1)
call('PEXPIREAT', KEYS[1], forget)
call('ZADD', KEYS[2], forget, ARGV[1])
if held[3] ~= 'terminated' and not held[6] then
  call('ZADD', KEYS[3], format('%.0f', now + ARGV[3]), ARGV[1])
end
return {OK, call('HGETALL', KEYS[1])}
