#!lua flags=no-writes
-- Records of a part of the ledger.
--
-- KEYS  1 ledger: as 10 in call_create
-- ARGV  1 number after which they are   2 most records
-- Returns {number of the newest record, or 0, its entries, the entry with the number of ARGV 1, if
-- it is kept}.

local call, last, at = redis.call, 0, ARGV[1] .. '-0'
if call('EXISTS', KEYS[1]) == 0 then return {0, {}, {}} end
local about = call('XINFO', 'STREAM', KEYS[1])
for i = 1, #about, 2 do
  if about[i] == 'last-generated-id' then last = tonumber(about[i + 1]:match('^%d+')) end
end
return {last, call('XRANGE', KEYS[1], '(' .. at, '+', 'COUNT', ARGV[2]),
  call('XRANGE', KEYS[1], at, at)}
