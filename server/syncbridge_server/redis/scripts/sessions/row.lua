#!lua flags=no-writes
-- One session as a row of a list: what it is, not what is in it. Reads only.
--
-- KEYS  1 m  meta   2 o  device -> "conn node", field "": who waits for a session to be made
--       3 p  ZSET device -> lease ms
-- ARGV  1  "1" to answer only when there is no meta: the caller has found the devices of a
--          session and will meet its meta by itself if there is one
-- Returns {owner, version, epoch, bytes, created ms, updated ms, devices, devices online},
--         or {} when there is nothing, or nothing new, to say.

local call = redis.call
local meta = call('HMGET', KEYS[1], 'u', 'v', 'e', 'n', 'c', 'm')
if meta[2] and ARGV[1] == '1' then return {} end
local devices = call('ZCARD', KEYS[3])
if not meta[2] and devices == 0 then return {} end
local clock = call('TIME')
local now = clock[1] .. string.format('%03d', math.floor(clock[2] / 1000))
local owner = meta[1] or call('HGET', KEYS[2], '') or ''
return {owner, tonumber(meta[2] or 0), meta[3] or '', tonumber(meta[4] or 0),
    tonumber(meta[5] or 0), tonumber(meta[6] or 0), devices,
    call('ZCOUNT', KEYS[3], '(' .. now, '+inf')}
