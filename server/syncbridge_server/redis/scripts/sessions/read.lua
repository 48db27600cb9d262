#!lua flags=no-writes
-- A whole session, or only its metadata when the reader has this version. Reads only. Format 2;
-- docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH; with old data last the old meta key
-- ARGV  1 flags: 1 owner check, 8 old data   2 user
--       3 to 5 the reader's place: epoch, version or -1, lineage or ""
-- Returns {status, version, epoch, lineage, owner, last writer, app version, created ms,
--          changed ms, refreshed ms, unchanged (0 or 1), flat state}.

local OK, NOT_FOUND, FORBIDDEN, FROZEN, OLD = 0, 4, 5, 10, 14
local flags = tonumber(ARGV[1])
local meta = redis.call('HMGET', KEYS[1], 'v', 'e', 'l', 'u', 'w', 'a', 'c', 'm', 't', 'z')
if not meta[1] then
  if flags % 16 > 7 and redis.call('EXISTS', KEYS[#KEYS]) == 1 then return {OLD} end
  return {NOT_FOUND}
end
if flags % 2 == 1 and meta[4] ~= ARGV[2] then return {FORBIDDEN} end
local unchanged = meta[1] == ARGV[4] and meta[2] == ARGV[3]
    and (ARGV[5] == '' or meta[3] == ARGV[5])
if (meta[10] == '1' or meta[10] == '3') and not unchanged then return {FROZEN} end
return {OK, tonumber(meta[1]), meta[2], meta[3], meta[4], meta[5] or '', meta[6] or '',
    tonumber(meta[7]), tonumber(meta[8]), tonumber(meta[9]), unchanged and 1 or 0,
    unchanged and {} or redis.call('HGETALL', string.sub(KEYS[1], 1, -2) .. 'd')}
