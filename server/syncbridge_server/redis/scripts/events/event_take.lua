#!lua flags=no-writes
-- The next events of an outbox.
--
-- KEYS  1 e:T, 2 ed:T  as in prelude.lua
-- ARGV  1 entry after which they begin   2 most
-- Returns {entries ever added, entries there, the first entry or "", {entry, fields}...,
--          sessions that changed and were not told}.

local call = redis.call
local added, length, first, entries = 0, 0, '', {}
if call('EXISTS', KEYS[1]) == 1 then
  local about = call('XINFO', 'STREAM', KEYS[1])
  for j = 1, #about, 2 do
    if about[j] == 'entries-added' then added = about[j + 1] end
    if about[j] == 'length' then length = about[j + 1] end
    if about[j] == 'first-entry' and about[j + 1] then first = about[j + 1][1] end
  end
  entries = call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
end
return {added, length, first, entries, call('ZCARD', KEYS[2])}
