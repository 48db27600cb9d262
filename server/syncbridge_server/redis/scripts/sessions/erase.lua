#!lua
-- Ends the life of a session in which no device is online. Format 2;
-- docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH. The other names are made from it; in a cluster the caller declares all.
-- Returns {status, devices online}: OK; NOT_FOUND; or OK with devices online, and nothing was done.

local OK, NOT_FOUND = 0, 4
local own = string.sub(KEYS[1], 1, -2)
local meta = redis.call('HMGET', KEYS[1], 'v', 'b')
local devices = redis.call('HKEYS', own .. 'o')
if not meta[1] and #devices == 0 then return {NOT_FOUND, 0} end
local online = tonumber(meta[2] or 0)
if online > 0 then return {OK, online} end
for j = 1, #devices do redis.call('DEL', own .. 'f:' .. devices[j]) end
redis.call('DEL', KEYS[1], own .. 'd', own .. 'k', own .. 'j', own .. 'c', own .. 'o', own .. 'z')
return {OK, 0}
