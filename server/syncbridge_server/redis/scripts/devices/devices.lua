#!lua flags=no-writes
-- The registered devices of a session. Reads only.
--
-- KEYS  1 m  meta   2 p  leases   3 v  infos   4 o  device -> "conn fence node"; "" the user who
--       waits for a session that does not exist; "\n" the newest fence
-- ARGV  1 user   2 owner check (0 or 1)
-- Returns {status, leases, infos, connections, now ms}.

local OK, NOT_FOUND, FORBIDDEN = 0, 4, 5
local clock = redis.call('TIME')
local now = clock[1] .. string.format('%03d', math.floor(clock[2] / 1000))
local infos, connections = redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4])
local owner = redis.call('HGET', KEYS[1], 'u')
if not owner and #infos == 0 then return {NOT_FOUND} end
owner = owner or redis.call('HGET', KEYS[4], '')
if ARGV[2] == '1' and owner ~= ARGV[1] then return {owner and FORBIDDEN or NOT_FOUND} end
return {OK, redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES'), infos, connections, tonumber(now)}
