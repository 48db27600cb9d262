#!lua flags=no-writes
-- A session whole, or only its description when the reader has this version. Reads only.
--
-- KEYS  1 m  meta   2 d  data
-- ARGV  1 user   2 owner check (0 or 1)   3 epoch   4 version the reader has, -1 for none
-- Returns {FROZEN} when it needs a state that is packed away (see thaw.lua), else
--         {status, version, epoch, owner, last writer, app version, created ms, updated ms,
--          TTL refresh ms, unchanged (0 or 1), flat state}.

local OK, NOT_FOUND, FORBIDDEN, FROZEN = 0, 4, 5, 10
local meta = redis.call('HMGET', KEYS[1], 'v', 'e', 'u', 'w', 'a', 'c', 'm', 't', 'z')
if not meta[1] then return {NOT_FOUND} end
if ARGV[2] == '1' and meta[3] ~= ARGV[1] then return {FORBIDDEN} end
local unchanged = meta[1] == ARGV[4] and meta[2] == ARGV[3]
if meta[9] and not unchanged then return {FROZEN} end
return {OK, tonumber(meta[1]), meta[2], meta[3], meta[4] or '', meta[5] or '', tonumber(meta[6]),
    tonumber(meta[7]), tonumber(meta[8]), unchanged and 1 or 0,
    unchanged and {} or redis.call('HGETALL', KEYS[2])}
