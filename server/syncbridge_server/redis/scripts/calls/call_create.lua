#!lua
-- Create a call session.
--
-- KEYS  1 call:{bucket}:<id>  HASH: y type, i number of the type's first index (0 or 3), s state,
--         c created ms, u updated ms, n bytes of details, k what made it, v number of writes,
--         <state> "ms who" for each state it came into, .<name> JSON text of a detail,
--         @<number> "ms kind [who, value]" of an event, m number of events, #<key> what made an
--         event, held 1 or 0, parent, channel, cause, l "last heartbeat ms, end of the lease ms"
--       2 calls:{bucket}:x  ZSET id -> ms after which the call is forgotten
--       3..8 calls:{bucket}:0..5  ZSET id -> created ms, of SIP pending, active, terminated, then
--         of WebRTC
--       9 calls:{bucket}:due  ZSET id -> ms at which a call that has not ended is ended, unless a
--         write or heartbeat comes before
--       10 ledger:{bucket}  STREAM of ended calls, see call_state
--       11 calls:{bucket}:rel  ZSET of "field NUL value NUL created ms, 16 digits NUL id", score 0
--       12 calls:{bucket}:relof  HASH "field NUL id" -> its member of 11
-- ARGV  1 id   2 type   3 number of its first index   4 who   5 what makes it   6 ttl ms
--       7 ms until it is ended   8 bytes of details   9 parent or ""   10 channel or ""
--       11.. name and JSON text of each detail
-- Returns {status, the hash}: OK, DUPLICATE (made by the same before), CONFLICT (by another).
-- A call's hash and index entries share one slot, so they always agree: an entry of an expired hash
-- is removed by its time in x, which is the hash's expiry.

local OK, DUPLICATE, CONFLICT = 0, 1, 2
local call, format = redis.call, string.format
local made = call('HGET', KEYS[1], 'k')
-- Check their types: nothing may fail after the first write.
for i = 2, 9 do call('ZCARD', KEYS[i]) end
call('ZCARD', KEYS[11])
call('HLEN', KEYS[12])
if made then
  return {made == ARGV[5] and DUPLICATE or CONFLICT, call('HGETALL', KEYS[1])}
end
local function drop(id)
  for i = 2, 9 do call('ZREM', KEYS[i], id) end
  for _, field in ipairs({'parent', 'channel'}) do
    local member = call('HGET', KEYS[12], field .. '\0' .. id)
    if member then
      call('ZREM', KEYS[11], member)
      call('HDEL', KEYS[12], field .. '\0' .. id)
    end
  end
end
local clock = call('TIME')
local now = clock[1] .. format('%03d', math.floor(clock[2] / 1000))
local forget = format('%.0f', now + ARGV[6])
for _, id in ipairs(call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. now, 'LIMIT', 0, 16)) do
  drop(id)
end
drop(ARGV[1])
call('HSET', KEYS[1], 'y', ARGV[2], 'i', ARGV[3], 's', 'pending', 'c', now, 'u', now,
    'n', ARGV[8], 'k', ARGV[5], 'pending', now .. ' ' .. ARGV[4])
for i, field in ipairs({'parent', 'channel'}) do
  local value = ARGV[8 + i]
  if value ~= '' then
    local member = table.concat({field, value, format('%016.0f', now), ARGV[1]}, '\0')
    call('HSET', KEYS[1], field, value)
    call('ZADD', KEYS[11], 0, member)
    call('HSET', KEYS[12], field .. '\0' .. ARGV[1], member)
  end
end
for i = 11, #ARGV, 2 do call('HSET', KEYS[1], '.' .. ARGV[i], ARGV[i + 1]) end
call('PEXPIREAT', KEYS[1], forget)
call('ZADD', KEYS[2], forget, ARGV[1])
call('ZADD', KEYS[3 + ARGV[3]], now, ARGV[1])
call('ZADD', KEYS[9], format('%.0f', now + ARGV[7]), ARGV[1])
--@ put(string.match(KEYS[1], '{[^}]*}'), 'call_session.created', 'i', ARGV[1], 'y', ARGV[2],
--@     'w', ARGV[4])
return {OK, call('HGETALL', KEYS[1])}
