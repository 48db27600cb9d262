#!lua flags=no-writes
-- A session as a row of a list, without its state. Reads only. Format 2;
-- docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH
-- Returns {owner, version, epoch, bytes, created ms, changed ms, devices, devices online},
--         or {} for a missing session.

local meta = redis.call('HMGET', KEYS[1], 'u', 'v', 'e', 'n', 'c', 'm', 'r', 'b')
local devices = redis.call('HLEN', string.sub(KEYS[1], 1, -2) .. 'o')
if not meta[2] and devices == 0 then return {} end
return {meta[1] or meta[7] or '', tonumber(meta[2] or 0), meta[3] or '', tonumber(meta[4] or 0),
    tonumber(meta[5] or 0), tonumber(meta[6] or 0), devices, tonumber(meta[8] or 0)}
