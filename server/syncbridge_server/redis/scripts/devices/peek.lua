#!lua flags=no-writes
-- What a session is, without its state. Reads only.
--
-- KEYS  1 m  meta   2 p  ZSET device -> lease ms   3 o  device -> "conn fence node"; "" the user
--       who waits for a session that does not exist
-- Returns {exists (0 or 1), owner, version, epoch, updated ms, ids of the devices online}.

local clock = redis.call('TIME')
local now = clock[1] .. string.format('%03d', math.floor(clock[2] / 1000))
local meta = redis.call('HMGET', KEYS[1], 'v', 'u', 'e', 'm')
local owner = meta[2] or redis.call('HGET', KEYS[3], '') or ''
return {meta[1] and 1 or 0, owner, tonumber(meta[1] or 0), meta[3] or '', tonumber(meta[4] or 0),
    redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now, '+inf')}
