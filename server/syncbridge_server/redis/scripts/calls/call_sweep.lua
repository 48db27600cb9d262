#!lua flags=allow-oom
-- Due work of a bucket of call sessions: find calls to end, and delete old records.
--
-- KEYS  1 due, 2 ledger: as 9 and 10 in call_create
-- ARGV  1 most ids   2 ms in which a record is kept
-- Returns the ids of calls whose time in 1 has come. Deletes at most 512 records. A record from the
-- future, which a wrong clock made, goes with the next one that is old.

local call, format = redis.call, string.format
local clock = call('TIME')
local now = clock[1] .. format('%03d', math.floor(clock[2] / 1000))
local ids = call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
local keep, gone = now - ARGV[2], nil
local function kept(entry)
  local at = tonumber(entry[2][2])
  return at >= keep and at <= tonumber(now)
end
local oldest = call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
if #oldest == 0 or kept(oldest[1]) then return ids end
for _, entry in ipairs(call('XRANGE', KEYS[2], '-', '+', 'COUNT', 512)) do
  if kept(entry) then break end
  if tonumber(entry[2][2]) < keep then gone = entry[1] end
end
if gone then
  call('XTRIM', KEYS[2], 'MINID', format('%.0f-0', tonumber(gone:match('^%d+')) + 1))
end
return ids
