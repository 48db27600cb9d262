#!lua
-- Bring a call session into a state.
--
-- KEYS  1 call, 2 x, 3..8 indexes: as in call_create
-- ARGV  1 id   2 state   3 its number (0 to 2)   4 who   5 ttl ms   6.. states that it may follow
-- Returns {status, the hash, state before}: OK, DUPLICATE (it is in that state), NOT_FOUND,
-- CONFLICT (the state does not follow).

local OK, DUPLICATE, CONFLICT, NOT_FOUND = 0, 1, 2, 4
local call, format = redis.call, string.format
local held = call('HMGET', KEYS[1], 's', 'i', 'c', 'u')
local before = held[1]
for i = 2, 8 do call('ZCARD', KEYS[i]) end
if not before then return {NOT_FOUND} end
if before == ARGV[2] then return {DUPLICATE, call('HGETALL', KEYS[1]), before} end
local allowed = false
for i = 6, #ARGV do allowed = allowed or ARGV[i] == before end
if not allowed then return {CONFLICT, call('HGETALL', KEYS[1]), before} end
local clock = call('TIME')
local now = tonumber(clock[1] .. format('%03d', math.floor(clock[2] / 1000)))
local at = format('%.0f', math.max(now, tonumber(held[4])))
local forget = format('%.0f', now + ARGV[5])
call('HSET', KEYS[1], 's', ARGV[2], 'u', at, ARGV[2], at .. ' ' .. ARGV[4])
call('PEXPIREAT', KEYS[1], forget)
call('ZADD', KEYS[2], forget, ARGV[1])
for i = 3, 8 do call('ZREM', KEYS[i], ARGV[1]) end
call('ZADD', KEYS[3 + held[2] + ARGV[3]], held[3], ARGV[1])
return {OK, call('HGETALL', KEYS[1]), before}
