#!lua
-- Unpack a frozen session. Format 2; docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH
-- ARGV  1 version   2 epoch   3 lineage; "" for a state that format 1 has packed
--       4 to 6 number of arguments for data, index, imprints
--       7.. key, value, ...; version, key, ...; key, imprint, ...; key, writer, ...
-- Returns 1; 0 when it is not frozen (another node was faster); 2 when it is frozen at another
-- place: it was thawed, written and frozen again since the packed state was read.

local call, own = redis.call, string.sub(KEYS[1], 1, -2)
local meta = call('HMGET', KEYS[1], 'v', 'e', 'l', 'z')
if meta[4] ~= '1' and meta[4] ~= '3' then return 0 end
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return 2 end
if ARGV[3] ~= '' and meta[3] ~= ARGV[3] then return 2 end
local left = call('PTTL', KEYS[1])
-- An even number, so that no pair is cut, and below the 8,000 values that `unpack` can take.
local CHUNK = 3000
local function fill(command, letter, from, to)
  for at = from, to, CHUNK do
    call(command, own .. letter, unpack(ARGV, at, math.min(at + CHUNK - 1, to)))
  end
  if from <= to and left > 0 then call('PEXPIRE', own .. letter, left) end
end
local data = 6 + tonumber(ARGV[4])
local index = data + tonumber(ARGV[5])
local imprints = index + tonumber(ARGV[6])
call('DEL', own .. 'd', own .. 'k', own .. 'c', own .. 'w')
fill('ZADD', 'k', data + 1, index)
fill('HSET', 'd', 7, data)
fill('HSET', 'c', index + 1, imprints)
fill('HSET', 'w', imprints + 1, #ARGV)
if meta[4] == '3' then call('HSET', KEYS[1], 'z', '2') else call('HDEL', KEYS[1], 'z') end
call('DEL', own .. 'z')
return 1
