#!lua flags=no-writes
-- A session whole, with what is known of how it was at an earlier version. Reads only.
--
-- KEYS  1 m  meta   2 d  data   3 k  versions   4 j  LIST journal, see apply.lua
-- ARGV  1 user   2 owner check (0 or 1)   3 base version
-- Returns {status, version, epoch, tombstone floor, flat state, keys changed after base (deleted
--          ones too), journal lines}. The lists of changes are empty when base is not in the past.

local OK, NOT_FOUND, FORBIDDEN, FROZEN = 0, 4, 5, 10
local meta = redis.call('HMGET', KEYS[1], 'v', 'e', 'f', 'u', 'z')
if not meta[1] then return {NOT_FOUND} end
if ARGV[2] == '1' and meta[4] ~= ARGV[1] then return {FORBIDDEN} end
if meta[5] then return {FROZEN} end
local changed, journal = {}, {}
if tonumber(ARGV[3]) < tonumber(meta[1]) then
  changed = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[3], '+inf')
  journal = redis.call('LRANGE', KEYS[4], 0, -1)
end
return {OK, tonumber(meta[1]), meta[2], tonumber(meta[3]), redis.call('HGETALL', KEYS[2]), changed,
    journal}
