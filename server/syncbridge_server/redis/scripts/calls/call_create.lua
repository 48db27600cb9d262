#!lua
-- Make a call session.
--
-- KEYS  1 call:{bucket}:<id>  HASH: y type, i number of the type's first index (0 or 3), s state,
--         c created ms, u updated ms, n bytes of details, k what made it, <state> "ms who" for each
--         state it came into, .<name> JSON text of a detail
--       2 calls:{bucket}:x  ZSET id -> ms after which the call is forgotten
--       3..8 calls:{bucket}:0..5  ZSET id -> created ms, of SIP pending, active, terminated, then
--         of WebRTC
-- ARGV  1 id   2 type   3 number of its first index   4 who   5 what makes it   6 ttl ms
--       7 bytes of details   8.. name and JSON text of each
-- Returns {status, the hash}: OK, DUPLICATE (made by the same before), CONFLICT (by another).
-- A call's hash and its places in the indexes have one slot, so they never differ: an entry whose
-- hash has expired is taken out by the time in x, which is that of the hash.

local OK, DUPLICATE, CONFLICT = 0, 1, 2
local call, format = redis.call, string.format
local made = call('HGET', KEYS[1], 'k')
call('ZCARD', KEYS[2])  -- for its type: nothing may fail after the first write
for i = 3, 8 do call('ZCARD', KEYS[i]) end
if made then
  return {made == ARGV[5] and DUPLICATE or CONFLICT, call('HGETALL', KEYS[1])}
end
local clock = call('TIME')
local now = clock[1] .. format('%03d', math.floor(clock[2] / 1000))
local forget = format('%.0f', now + ARGV[6])
for _, id in ipairs(call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. now, 'LIMIT', 0, 16)) do
  for i = 2, 8 do call('ZREM', KEYS[i], id) end
end
for i = 3, 8 do call('ZREM', KEYS[i], ARGV[1]) end
call('HSET', KEYS[1], 'y', ARGV[2], 'i', ARGV[3], 's', 'pending', 'c', now, 'u', now,
    'n', ARGV[7], 'k', ARGV[5], 'pending', now .. ' ' .. ARGV[4])
for i = 8, #ARGV, 2 do call('HSET', KEYS[1], '.' .. ARGV[i], ARGV[i + 1]) end
call('PEXPIREAT', KEYS[1], forget)
call('ZADD', KEYS[2], forget, ARGV[1])
call('ZADD', KEYS[3 + ARGV[3]], now, ARGV[1])
return {OK, call('HGETALL', KEYS[1])}
