#!lua
-- A device joins: owner check, device cap, register device and node, read the state. The node is
-- registered in the same step that reads the state, so no commit falls between.
-- Format 2; docs/decisions/0009-the-layout-of-redis.md says what each key and field is.
--
-- KEYS  1 m  meta HASH   2 ns:T:<node>  SET of the node's sessions in this bucket
--       with old data last the old meta key. The other names are made from the first.
-- ARGV  1 flags: 1 owner check, 8 old data, 16 roster   2 user   3 device   4 node   5 conn
--       6 info
--       7 to 9 since: epoch, version or -1, lineage or ""
--       10 to 12 place of the node's replica, likewise   13 stream or ""   14 device cap
-- Returns {status, version, epoch, lineage, owner, kind, reason, keys or flat state, values, fence,
--          record before or "", now ms, nodes, last seq of the stream, -1 unknown, -2
--          pushed out by newer ones, devices online,
--          newest fence before, flat devices with flag 16}.
--          kind: 0 whole, 1 difference, 2 the replica is current.
-- A fence is the time, but always greater than the one before, within a session and after a data
-- loss. A connection that repeats hello keeps its fence, and no node is notified.

local TTL, WAITING_TTL = 604800000, 3600000
local OK, FORBIDDEN, TOO_MANY_DEVICES, FROZEN, OLD = 0, 5, 8, 10, 14
local WHOLE, DIFFERENCE, CURRENT = 0, 1, 2
local HOUR, CHUNK, KEPT, OFFLINE = 3600000, 3000, 256, 256
local LIST_TTL = TTL + HOUR
local call, format, sub, match = redis.call, string.format, string.sub, string.match

local flags, user, device, node = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local own = sub(KEYS[1], 1, -2)
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local meta = call('HMGET', KEYS[1], 'v', 'l', 'e', 'u', 'f', 't', 'z', 'r', 's', 'b', 'g',
    'i' .. device)
local exists = meta[1] ~= false
if not exists and flags % 16 > 7 and call('EXISTS', KEYS[#KEYS]) == 1 then return {OLD} end
local version, lineage, epoch = tonumber(meta[1] or 0), meta[2] or '', meta[3] or ''
local owner, floor = meta[4] or meta[8] or user, tonumber(meta[5] or 0)
if flags % 2 == 1 and owner ~= user then return {FORBIDDEN} end

local current = call('HGET', own .. 'o', device) or ''
local had_fence, had_seen, had_node, had_conn = match(current, '^(%d+) (%d+) (%S+) (%S+)\n')
local live = had_node and had_node ~= '-'
local again = live and had_conn == ARGV[5]
local newest = tonumber(meta[11] or 0)
local fence = again and had_fence or format('%.0f', math.max(now, newest + 1))
local online = tonumber(meta[10] or 0) + (live and 0 or 1)
if online > tonumber(ARGV[14]) then return {TOO_MANY_DEVICES, version, epoch, lineage} end

-- The token of a version, nil when it is no longer known.
local function token_of(at)
  if at == version then return lineage end
  if at < 1 or at > version or at <= version - KEPT then return nil end
  local entry = redis.pcall('LINDEX', own .. 'j', at - version - 1)
  return type(entry) == 'string' and sub(entry, 1, 12) or nil
end
local since, kind, reason, first, second = tonumber(ARGV[8]), WHOLE, '', {}, {}
if exists and since >= 0 then
  local token = ARGV[9] == '' and '' or token_of(since)
  if ARGV[7] ~= epoch then
    reason = 'epoch'
  elseif since > version or (token and token ~= ARGV[9]) then
    reason = 'rolled_back'
  elseif not token or since < floor then
    reason = 'resync'
  else
    kind = DIFFERENCE
  end
elseif since > 0 then
  reason = 'epoch'
elseif exists and tonumber(ARGV[11]) == version and ARGV[10] == epoch
    and (ARGV[12] == '' or ARGV[12] == lineage) then
  kind = CURRENT
end
local frozen = meta[7] == '1' or meta[7] == '3'
if exists and kind == WHOLE then
  if frozen then return {FROZEN} end
  first = call('HGETALL', own .. 'd')
elseif kind == DIFFERENCE and since < version then
  if frozen then return {FROZEN} end
  first = call('ZRANGEBYSCORE', own .. 'k', '(' .. ARGV[8], '+inf')
  for from = 1, #first, CHUNK do
    local part = call('HMGET', own .. 'd', unpack(first, from, math.min(from + CHUNK - 1, #first)))
    for j = 1, #part do second[#second + 1] = part[j] end
  end
end

-- From here on everything is written. First the keys that have not been read.
local refreshed = tonumber(meta[6] or 0)
local expiry = format('%.0f', exists and refreshed + TTL or now + WAITING_TTL)
if call('SADD', KEYS[2], sub(KEYS[1], -38, -3)) == 1 then call('PEXPIRE', KEYS[2], LIST_TTL) end
call('HSET', own .. 'o', device, fence .. ' ' .. format('%.0f', again and had_seen or now) .. ' '
    .. node .. ' ' .. ARGV[5] .. '\n' .. ARGV[6])
local nodes = meta[9] or ''
if not string.find(' ' .. nodes .. ' ', ' ' .. node .. ' ', 1, true) then
  nodes = nodes == '' and node or nodes .. ' ' .. node
  call('HSET', KEYS[1], 's', nodes)
end
if not again then
  call('HSET', KEYS[1], 'b', online, 'g', fence)
  -- What the replaced connection has sent, and its node not yet carried out, comes too late.
  if live then call('HSET', KEYS[1], 'x' .. device, fence) end
end
if not exists and flags % 2 == 1 and not meta[8] then call('HSET', KEYS[1], 'r', user) end

-- The number of remembered offline devices is bounded.
local cap = tonumber(ARGV[14])
if call('HLEN', own .. 'o') > math.min(5 * cap, online + OFFLINE) then
  local all, offline = call('HGETALL', own .. 'o'), {}
  for j = 1, #all, 2 do
    local seen = match(all[j + 1], '^%d+ (%d+) %- ')
    if seen then offline[#offline + 1] = {tonumber(seen), all[j]} end
  end
  table.sort(offline, function(a, b) return a[1] < b[1] end)
  for j = 1, math.min(#offline, #all / 2 - math.min(4 * cap, online + OFFLINE / 2)) do
    call('HDEL', own .. 'o', offline[j][2])
    call('HDEL', KEYS[1], 'x' .. offline[j][2])
  end
end

local letters = exists and 'o' or 'mo'
if exists and now - refreshed > HOUR then
  call('HSET', KEYS[1], 't', now)
  letters, expiry = 'mdkjcozw', format('%.0f', now + TTL)
end
for letter in string.gmatch(letters, '.') do call('PEXPIREAT', own .. letter, expiry) end

--@ if not again then
--@   told_device('joined', owner, device, online, 'w', user, 'p', live and '1' or '')
--@ end
if not again then
  local channel = match(KEYS[1], '^s:({[^}]*}:)')
  local news = 'P2 ' .. sub(KEYS[1], -38, -3) .. ' joined ' .. fence .. ' '
      .. format('%.0f', version) .. ' ' .. online .. ' ' .. fence .. ' ' .. #device .. '\n'
      .. device .. ARGV[6]
  local told = {[node] = true}
  for name in string.gmatch(nodes .. ' ' .. (live and had_node or node), '%S+') do
    if not told[name] then
      told[name] = true
      redis.pcall('SPUBLISH', channel .. name, news)
    end
  end
end

-- The number of the last update of the device's stream; see apply.lua.
local last = -1
if ARGV[13] ~= '' and meta[12] then
  for record in string.gmatch(meta[12], '[^;]+') do
    if sub(record, 1, 12) == ARGV[13] .. ' ' then last = tonumber(match(record, '^%S+ (%d+)')) end
  end
  -- A stream that newer ones have evicted is not lost.
  if last < 0 and string.find(meta[12], ARGV[13], 1, true) then last = -2 end
end
local list = {}
for name in string.gmatch(nodes, '%S+') do list[#list + 1] = name end
return {OK, version, epoch, lineage, owner, kind, reason, first, second, tonumber(fence),
    not again and live and match(current, '^[^\n]*') or '', now, list, last, online, newest,
    flags % 32 > 15 and call('HGETALL', own .. 'o') or {}}
