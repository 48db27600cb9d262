#!lua flags=no-writes
-- Metadata of a session, without its state. Reads only. Format 2;
-- docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH; with old data last the old meta key
-- ARGV  1 flags: 8 old data
-- Returns {exists (0 or 1), owner, version, epoch, lineage, changed ms, ids of devices online,
--          bytes of keys and values}.

local meta = redis.call('HMGET', KEYS[1], 'v', 'u', 'r', 'e', 'l', 'm', 'n')
if not meta[1] and tonumber(ARGV[1]) % 16 > 7 and redis.call('EXISTS', KEYS[#KEYS]) == 1 then
  return {14}
end
local all, online = redis.call('HGETALL', string.sub(KEYS[1], 1, -2) .. 'o'), {}
for j = 1, #all, 2 do
  if not string.find(all[j + 1], '^%d+ %d+ %- ') then online[#online + 1] = all[j] end
end
return {meta[1] and 1 or 0, meta[2] or meta[3] or '', tonumber(meta[1] or 0), meta[4] or '',
    meta[5] or '', tonumber(meta[6] or 0), online,
    tonumber(meta[7] or 0)}
