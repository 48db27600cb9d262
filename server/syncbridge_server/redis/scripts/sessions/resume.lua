#!lua flags=no-writes
-- What changed since a version, or the whole state when that cannot be told. Reads only.
--
-- KEYS  1 m  meta   2 d  data   3 k  versions
-- ARGV  1 user   2 owner check (0 or 1)   3 epoch   4 version
-- Returns {FROZEN} when it needs a state that is packed away (see thaw.lua), else
--         {status, version, epoch, kind, keys or flat state, values}; kind: 0 full, 1 delta.
-- A key of a delta without a value was deleted.

local OK, NOT_FOUND, FORBIDDEN, FROZEN, CHUNK = 0, 4, 5, 10, 3000
local meta = redis.call('HMGET', KEYS[1], 'v', 'e', 'f', 'u', 'z')
if not meta[1] then return {NOT_FOUND} end
if ARGV[2] == '1' and meta[4] ~= ARGV[1] then return {FORBIDDEN} end
local version, since = tonumber(meta[1]), tonumber(ARGV[4])
if meta[5] and (ARGV[3] ~= meta[2] or since ~= version) then return {FROZEN} end
if ARGV[3] ~= meta[2] or since < tonumber(meta[3]) or since > version then
  return {OK, version, meta[2], 0, redis.call('HGETALL', KEYS[2]), {}}
end
local names, values = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[4], '+inf'), {}
for from = 1, #names, CHUNK do
  local last = math.min(from + CHUNK - 1, #names)
  local part = redis.call('HMGET', KEYS[2], unpack(names, from, last))
  for j = 1, #part do values[#values + 1] = part[j] end
end
return {OK, version, meta[2], 1, names, values}
