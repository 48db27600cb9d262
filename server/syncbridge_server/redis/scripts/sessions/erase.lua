#!lua
-- Ends the life of a session in which no device is online. Format 2;
-- docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH. The other names are made from it; in a cluster the caller declares all.
-- Returns how many devices are online: unless that is 0, nothing was done.

local own = string.sub(KEYS[1], 1, -2)
local online = tonumber(redis.call('HGET', KEYS[1], 'b') or 0)
if online > 0 then return online end
for _, device in ipairs(redis.call('HKEYS', own .. 'o')) do
  redis.call('DEL', own .. 'f:' .. device)
end
--@ -- It has not expired: somebody has ended it.
--@ redis.pcall('ZREM', 'ex:' .. string.sub(KEYS[1], 3, -40),
--@     string.sub(KEYS[1], -38, -3) .. ' ' .. (redis.call('HGET', KEYS[1], 'u') or ''))
--@ -- Nor is a version that was not told yet one of the session that is made under its id next.
--@ redis.pcall('ZREM', 'ed:' .. string.sub(KEYS[1], 3, -40), string.sub(KEYS[1], -38, -3))
--@ redis.pcall('ZREM', 'et:' .. string.sub(KEYS[1], 3, -40), string.sub(KEYS[1], -38, -3))
redis.call('DEL', KEYS[1], own .. 'd', own .. 'k', own .. 'j', own .. 'c', own .. 'o', own .. 'z',
    own .. 'w')
return 0
