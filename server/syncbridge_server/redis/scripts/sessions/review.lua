#!lua flags=no-writes
-- The whole session, with what is known of an earlier version. Reads only. Format 2;
-- docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH; with old data last the old meta key
-- ARGV  1 flags: 1 owner check, 8 old data   2 user   3 base version   4 its lineage or ""
-- Returns {status, version, epoch, lineage, tombstone floor, verified (0 or 1), flat state, keys
--          changed after base (deleted ones too), journal entries, the last that of version}.
--          The lists of changes are empty when base is not in this history.

local OK, NOT_FOUND, FORBIDDEN, FROZEN, OLD, KEPT = 0, 4, 5, 10, 14, 256
local call = redis.call
local flags, own = tonumber(ARGV[1]), string.sub(KEYS[1], 1, -2)
local meta = call('HMGET', KEYS[1], 'v', 'e', 'l', 'f', 'u', 'z')
if not meta[1] then
  if flags % 16 > 7 and call('EXISTS', KEYS[#KEYS]) == 1 then return {OLD} end
  return {NOT_FOUND}
end
if flags % 2 == 1 and meta[5] ~= ARGV[2] then return {FORBIDDEN} end
if meta[6] == '1' or meta[6] == '3' then return {FROZEN} end
local version, base = tonumber(meta[1]), tonumber(ARGV[3])
local verified = ARGV[4] == ''
if base == version and base > 0 then
  verified = verified or meta[3] == ARGV[4]
elseif base > 0 and base < version and base > version - KEPT and not verified then
  local entry = redis.pcall('LINDEX', own .. 'j', base - version - 1)
  verified = type(entry) == 'string' and string.sub(entry, 1, 12) == ARGV[4]
end
local changed, journal = {}, {}
if verified and base < version then
  changed = call('ZRANGEBYSCORE', own .. 'k', '(' .. ARGV[3], '+inf')
  -- A journal of the wrong type counts as lost.
  local entries = redis.pcall('LRANGE', own .. 'j', 0, -1)
  if not entries.err then journal = entries end
end
return {OK, version, meta[2], meta[3], tonumber(meta[4]), verified and 1 or 0,
    call('HGETALL', own .. 'd'), changed, journal}
