#!lua
-- Record the spelling of a value that a script made but could not determine, see APPEND in
-- apply.lua. Format 2; docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH
-- ARGV  1 key   2 version that the change made   3 its lineage   4 spelling, "" for none
-- Returns 1, or 0 when the key was changed since, the history is another one, or it is frozen.

local KEPT = 256
local call, own = redis.call, string.sub(KEYS[1], 1, -2)
local meta = call('HMGET', KEYS[1], 'v', 'l', 'z', 't')
local version, at = tonumber(meta[1] or 0), tonumber(ARGV[2])
if meta[3] ~= '2' or at > version or at <= version - KEPT then return 0 end
local token = meta[2]
if at < version then
  local entry = redis.pcall('LINDEX', own .. 'j', at - version - 1)
  token = type(entry) == 'string' and string.sub(entry, 1, 12) or ''
end
if token ~= ARGV[3] or call('ZSCORE', own .. 'k', ARGV[1]) ~= ARGV[2] then return 0 end
if call('HEXISTS', own .. 'c', ARGV[1]) == 0 then return 0 end
if ARGV[4] == '' then
  call('HDEL', own .. 'c', ARGV[1])
else
  call('HSET', own .. 'c', ARGV[1], ARGV[4])
end
return 1
