#!lua flags=no-writes
-- The registered devices of a session. Reads only.
-- Format 2; docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH; with old data last the old meta key
-- ARGV  1 flags: 1 owner check, 8 old data   2 user
-- Returns {status, flat devices and records, newest fence, now ms}.

local OK, NOT_FOUND, FORBIDDEN, OLD = 0, 4, 5, 14
local flags = tonumber(ARGV[1])
local clock = redis.call('TIME')
local meta = redis.call('HMGET', KEYS[1], 'v', 'u', 'r', 'g')
if not meta[1] and flags % 16 > 7 and redis.call('EXISTS', KEYS[#KEYS]) == 1 then return {OLD} end
local all = redis.call('HGETALL', string.sub(KEYS[1], 1, -2) .. 'o')
local owner = meta[2] or meta[3]
if not meta[1] and #all == 0 then return {NOT_FOUND} end
if flags % 2 == 1 and owner ~= ARGV[2] then return {owner and FORBIDDEN or NOT_FOUND} end
return {OK, all, tonumber(meta[4] or 0), clock[1] * 1000 + math.floor(clock[2] / 1000)}
