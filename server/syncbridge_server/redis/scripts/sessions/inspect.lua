#!lua flags=no-writes
-- A session for an operator: its metadata, each key with its version, and what is known of the
-- writers. Reads only. Format 2; docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH
-- Returns {flat meta, flat state, flat keys and versions (deleted keys too), flat device and the
--          last six digits of the versions that its newest updates without a stream were taken at,
--          flat writers}; {FROZEN} while it is packed.

local FROZEN = 10
local packed = redis.call('HGET', KEYS[1], 'z')
if packed == '1' or packed == '3' then return {FROZEN} end
local own = string.sub(KEYS[1], 1, -2)
local noted, devices = {}, redis.call('HKEYS', own .. 'o')
for j = 1, #devices do
  local found = {}
  local scores = redis.call('ZREVRANGE', own .. 'f:' .. devices[j], 0, 63, 'WITHSCORES')
  for k = 2, #scores, 2 do found[#found + 1] = tonumber(scores[k]) % 1000000 end
  if #found > 0 then
    noted[#noted + 1] = devices[j]
    noted[#noted + 1] = found
  end
end
local writers = redis.pcall('HGETALL', own .. 'w')
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', own .. 'd'),
    redis.call('ZRANGE', own .. 'k', 0, -1, 'WITHSCORES'), noted,
    writers.err and {} or writers}
