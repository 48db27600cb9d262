#!lua
-- A device joins: owner check, device cap, register device, presence and node, read the state.
-- The node is registered in the same step that reads the state, so no commit falls between.
--
-- KEYS  1 m  meta   2 d  data   3 k  versions   4 i  mutations   5 p  ZSET device -> lease ms
--       6 v  HASH device -> info JSON
--       7 o  HASH device -> "conn fence node" of the live connection; field "\n" holds the newest
--         fence; field "" holds the user who waits for a session that does not exist yet;
--         nobody else may join or create it meanwhile
--       8 n  ZSET node -> lease ms      9 z  packed state of a frozen session
-- ARGV  1 user   2 device   3 conn   4 info   5 node   6 owner check (0 or 1)
--       7 epoch and 8 version to resume from; version -1 for none
--       9 epoch and 10 version of the node's replica; -1 for none
--      11 device cap   12 presence ms   13 ttl ms   14 ttl ms while there is no session
-- Returns {FROZEN} when it needs a state that is packed away (see thaw.lua), else
--         {status, version, epoch, owner, kind, keys or flat state, values, leases, registry,
--          connections, now ms, other nodes, fence, previous connection or ""}.
--          kind: 0 full, 1 delta, 2 the replica is current.
-- Every other node with devices here is told with "P", see messages.py. Fences are the time, but
-- always greater than the one before: that holds within a session, and also after a data loss.
-- A connection that says hello again keeps its fence, and nobody is told.

local call, format = redis.call, string.format
local OK, FORBIDDEN, TOO_MANY_DEVICES, FROZEN = 0, 5, 8, 10
local FULL, DELTA, FRESH, CHUNK, HOUR = 0, 1, 2, 3000, 3600000

local user, device = ARGV[1], ARGV[2]
local clock = call('TIME')
local now_text = clock[1] .. format('%03d', math.floor(clock[2] / 1000))
local now = tonumber(now_text)
local meta = call('HMGET', KEYS[1], 'v', 'e', 'f', 'u', 't', 'z')
local exists = meta[1] ~= false
local version, epoch, floor = tonumber(meta[1] or 0), meta[2] or '', tonumber(meta[3] or 0)
local waiting = call('HMGET', KEYS[7], '', device, '\n')
local current = waiting[2] or ''
local again = string.sub(current, 1, #ARGV[3] + 1) == ARGV[3] .. ' '
local fence = again and string.match(current, ' (%d+) ')
    or format('%.0f', math.max(now, tonumber(waiting[3] or 0) + 1))
local owner = meta[4] or waiting[1] or user
if ARGV[6] == '1' and owner ~= user then return {FORBIDDEN} end

local leases = call('ZRANGE', KEYS[5], 0, -1, 'WITHSCORES')
local cap, online = tonumber(ARGV[11]), 1
for j = 1, #leases, 2 do
  if leases[j] ~= device and tonumber(leases[j + 1]) > now then online = online + 1 end
end
if online > cap then return {TOO_MANY_DEVICES, version, epoch} end

local nodes, peers = call('ZRANGE', KEYS[8], 0, -1, 'WITHSCORES'), 0
for j = 1, #nodes, 2 do
  if nodes[j] ~= ARGV[5] and tonumber(nodes[j + 1]) > now then peers = peers + 1 end
end

local since, known = tonumber(ARGV[8]), tonumber(ARGV[10])
local kind, first, second = FULL, {}, {}
call('HLEN', KEYS[6])  -- for its type: nothing may fail after the first write
if not exists then
  kind = FULL
elseif since >= floor and since <= version and since >= 0 and ARGV[7] == epoch then
  kind = DELTA
  if meta[6] and since < version then return {FROZEN} end
  first = call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[8], '+inf')
  for from = 1, #first, CHUNK do
    local part = call('HMGET', KEYS[2], unpack(first, from, math.min(from + CHUNK - 1, #first)))
    for j = 1, #part do second[#second + 1] = part[j] end
  end
elseif since < 0 and known == version and ARGV[9] == epoch then
  kind = FRESH
else
  if meta[6] then return {FROZEN} end
  first = call('HGETALL', KEYS[2])
end

-- From here on everything is written.
local lease = format('%.0f', now + tonumber(ARGV[12]))
call('ZADD', KEYS[8], lease, ARGV[5])
call('HSET', KEYS[6], device, ARGV[4])
call('HSET', KEYS[7], device, ARGV[3] .. ' ' .. fence .. ' ' .. ARGV[5])
if not again then
  call('HSET', KEYS[7], '\n', fence)
  -- What the replaced connection has sent, and its node not yet carried out, comes too late.
  if exists and current ~= '' then call('HSET', KEYS[1], 'x' .. device, fence) end
end
call('ZADD', KEYS[5], lease, device)
if not exists and ARGV[6] == '1' and not waiting[1] then call('HSET', KEYS[7], '', user) end

-- The registry remembers offline devices, but not without bound.
local spare = #leases / 2 - 4 * cap
if spare > 0 then
  for j = 1, 2 * spare, 2 do
    if tonumber(leases[j + 1]) <= now and leases[j] ~= device then
      call('ZREM', KEYS[5], leases[j])
      call('HDEL', KEYS[6], leases[j])
      call('HDEL', KEYS[7], leases[j])
      if exists then call('HDEL', KEYS[1], 'x' .. leases[j]) end
    end
  end
end

local ttl = tonumber(exists and ARGV[13] or ARGV[14])
local expiry = format('%.0f', now + ttl)
for j = 5, 8 do call('PEXPIREAT', KEYS[j], expiry) end
if exists and now - tonumber(meta[5] or 0) > HOUR then
  call('HSET', KEYS[1], 't', now_text)
  for j = 1, 4 do call('PEXPIREAT', KEYS[j], expiry) end
  call('PEXPIREAT', KEYS[9], expiry)
end

local news = 'P' .. string.sub(KEYS[1], 4, -4) .. ' joined ' .. fence .. ' '
    .. format('%.0f', version) .. ' ' .. #device .. '\n' .. device .. ARGV[4]
local before = string.match(current, ' (%S+)$') or ARGV[5]
for j = 1, again and 0 or #nodes, 2 do
  if nodes[j] ~= ARGV[5] and tonumber(nodes[j + 1]) > now then
    call('PUBLISH', 'n:' .. nodes[j], news)
    if nodes[j] == before then before = ARGV[5] end
  end
end
if before ~= ARGV[5] then call('PUBLISH', 'n:' .. before, news) end
return {OK, version, epoch, owner, kind, first, second,
    call('ZRANGE', KEYS[5], 0, -1, 'WITHSCORES'), call('HGETALL', KEYS[6]),
    call('HGETALL', KEYS[7]), now, peers, tonumber(fence), again and '' or current}
