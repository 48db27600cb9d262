#!lua flags=no-writes
-- The changes since a place, or the whole state when they are unknown. Reads only. Format 2;
-- docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH; with old data last the old meta key
-- ARGV  1 flags: 1 owner check, 8 old data   2 user   3 epoch   4 version   5 lineage or ""
--       6.. devices whose streams are read with it
-- Returns {status, version, epoch, lineage, kind, reason, keys or flat state, values, owner,
--          stream records of the devices}; kind: 0 whole, 1 difference. A key of a difference
--          without a value was deleted.

local OK, NOT_FOUND, FORBIDDEN, FROZEN, OLD = 0, 4, 5, 10, 14
local WHOLE, DIFFERENCE, CHUNK, KEPT = 0, 1, 3000, 256
local call = redis.call
local flags, own = tonumber(ARGV[1]), string.sub(KEYS[1], 1, -2)
local meta = call('HMGET', KEYS[1], 'v', 'e', 'l', 'f', 'u', 'z')
if not meta[1] then
  if flags % 16 > 7 and call('EXISTS', KEYS[#KEYS]) == 1 then return {OLD} end
  return {NOT_FOUND}
end
if flags % 2 == 1 and meta[5] ~= ARGV[2] then return {FORBIDDEN} end
local version, lineage, since = tonumber(meta[1]), meta[3], tonumber(ARGV[4])
local token = ''
if ARGV[5] ~= '' then
  token = since == version and lineage or nil
  if since > 0 and since < version and since > version - KEPT then
    local entry = redis.pcall('LINDEX', own .. 'j', since - version - 1)
    token = type(entry) == 'string' and string.sub(entry, 1, 12) or nil
  end
end
local kind, reason = WHOLE, ''
if ARGV[3] ~= meta[2] then
  reason = since > 0 and 'epoch' or ''
elseif since > version or (token and token ~= ARGV[5]) then
  reason = 'rolled_back'
elseif not token or since < tonumber(meta[4]) then
  reason = 'resync'
else
  kind = DIFFERENCE
end
if (meta[6] == '1' or meta[6] == '3') and not (kind == DIFFERENCE and since == version) then
  return {FROZEN}
end
local streams, names, values = {}, nil, {}
for j = 6, #ARGV do streams[j - 5] = call('HGET', KEYS[1], 'i' .. ARGV[j]) or '' end
if kind == WHOLE then
  names = call('HGETALL', own .. 'd')
else
  names = since < version and call('ZRANGEBYSCORE', own .. 'k', '(' .. ARGV[4], '+inf') or {}
  for from = 1, #names, CHUNK do
    local part = call('HMGET', own .. 'd', unpack(names, from, math.min(from + CHUNK - 1, #names)))
    for j = 1, #part do values[#values + 1] = part[j] end
  end
end
return {OK, version, meta[2], lineage, kind, reason, names, values, meta[5], streams}
