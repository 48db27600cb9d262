#!lua
-- Record an event of a call session.
--
-- KEYS  1 call, 2 x, 3 due, 4 rel, 5 relof: as 1, 2, 9, 11 and 12 in call_create
-- ARGV  1 id   2 ttl ms   3 ms until it is ended   4 tag "created-writes" that it must have, or ""
--       5 most events   6 what makes it, or ""   7 kind   8 JSON text of [who, value]
--       9 whether it must be on hold: "1", "0" or ""   10 field that it sets, or ""
--       11 what it sets it to; "" takes it away   12.. states in which it may happen
-- Returns {status, the hash}: OK, DUPLICATE (made before), NOT_FOUND, PRECONDITION (another tag),
-- CONFLICT (it does not fit the call as it is, or there are too many).

local OK, DUPLICATE, CONFLICT, NOT_FOUND, PRECONDITION = 0, 1, 2, 4, 16
local call, format = redis.call, string.format
local held = call('HMGET', KEYS[1], 's', 'u', 'c', 'v', 'l', 'm', 'held')
for i = 2, 4 do call('ZCARD', KEYS[i]) end
call('HLEN', KEYS[5])
if not held[1] then return {NOT_FOUND} end
if ARGV[6] ~= '' and call('HEXISTS', KEYS[1], '#' .. ARGV[6]) == 1 then
  return {DUPLICATE, call('HGETALL', KEYS[1])}
end
if ARGV[4] ~= '' and ARGV[4] ~= held[3] .. '-' .. (held[4] or 0) then
  return {PRECONDITION, call('HGETALL', KEYS[1])}
end
local allowed = false
for i = 12, #ARGV do allowed = allowed or ARGV[i] == held[1] end
allowed = allowed and (ARGV[9] == '' or ARGV[9] == (held[7] or '0'))
local number = (tonumber(held[6]) or 0) + 1
if not allowed or number > tonumber(ARGV[5]) then
  return {CONFLICT, call('HGETALL', KEYS[1])}
end
local clock = call('TIME')
local now = tonumber(clock[1] .. format('%03d', math.floor(clock[2] / 1000)))
local at, forget = format('%.0f', math.max(now, tonumber(held[2]))), format('%.0f', now + ARGV[2])
call('HSET', KEYS[1], '@' .. number, at .. ' ' .. ARGV[7] .. ' ' .. ARGV[8], 'm', number, 'u', at)
call('HINCRBY', KEYS[1], 'v', 1)
if ARGV[6] ~= '' then call('HSET', KEYS[1], '#' .. ARGV[6], number) end
local field, value = ARGV[10], ARGV[11]
if field == 'parent' or field == 'channel' then
  local place = field .. '\0' .. ARGV[1]
  local old = call('HGET', KEYS[5], place)
  if old then
    call('ZREM', KEYS[4], old)
    call('HDEL', KEYS[5], place)
  end
  if value ~= '' then
    local member = table.concat({field, value, format('%016.0f', held[3]), ARGV[1]}, '\0')
    call('ZADD', KEYS[4], 0, member)
    call('HSET', KEYS[5], place, member)
  end
end
if field ~= '' and value == '' then call('HDEL', KEYS[1], field) end
if field ~= '' and value ~= '' then call('HSET', KEYS[1], field, value) end
call('PEXPIREAT', KEYS[1], forget)
call('ZADD', KEYS[2], forget, ARGV[1])
if not held[5] then call('ZADD', KEYS[3], format('%.0f', now + ARGV[3]), ARGV[1]) end
return {OK, call('HGETALL', KEYS[1])}
