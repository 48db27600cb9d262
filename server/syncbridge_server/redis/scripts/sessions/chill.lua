#!lua flags=no-writes
-- Check whether a session is due for packing, and return its state if so. Reads only. Format 2;
-- docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH
-- ARGV  1 least bytes of a state that is worth it   2 ms without a write and without a device
--       3 bytes of a large state   4 ms without a write after which it is frozen anyhow
--       5 ms after which a state that is too small is looked at again
-- Returns {GONE} for a session that does not exist or is frozen, {LATER, when, ms},
--         or {READY, version, epoch, lineage, flat state, flat key and version, flat imprints,
--         flat writers}.

local GONE, LATER, READY = 0, 1, 2
local call, own = redis.call, string.sub(KEYS[1], 1, -2)
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local meta = call('HMGET', KEYS[1], 'v', 'e', 'l', 'm', 'n', 'z', 'b')
if not meta[1] or meta[6] == '1' or meta[6] == '3' then return {GONE} end
local written, bytes = tonumber(meta[4] or 0), tonumber(meta[5] or 0)
local large = bytes > tonumber(ARGV[3])
local due
if bytes < tonumber(ARGV[1]) then
  due = now + tonumber(ARGV[5])
elseif tonumber(meta[7] or 0) > 0 then
  due = large and written + tonumber(ARGV[4]) or now + tonumber(ARGV[2])
else
  local seen, records = 0, call('HVALS', own .. 'o')
  for j = 1, #records do
    seen = math.max(seen, tonumber(string.match(records[j], '^%d+ (%d+)') or 0))
  end
  due = math.max(written, seen) + tonumber(ARGV[2])
  if large then due = math.min(due, written + tonumber(ARGV[4])) end
end
if due > now then return {LATER, due} end
local writers = redis.pcall('HGETALL', own .. 'w')
return {READY, meta[1], meta[2], meta[3], call('HGETALL', own .. 'd'),
    call('ZRANGE', own .. 'k', 0, -1, 'WITHSCORES'),
    meta[6] == '2' and call('HGETALL', own .. 'c') or {},
    writers.err and {} or writers}
