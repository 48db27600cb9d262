#!lua
-- Move a session from format 1 to the keys of format 2, at its first use.
-- docs/decisions/0009-the-layout-of-redis.md says what each key and field is. Only a single Redis
-- can have such data, so other keys than those declared are found by name.
--
-- KEYS  1 to 9   m d k i p v o j z of format 1   10 to 16  m d k j c o z of format 2
-- ARGV  1 nonce
-- Returns 1, or 0 when there was nothing to move.
-- i: ZSET device:id -> version; p: ZSET device -> lease or when it left; v: HASH device -> info;
-- o: HASH device -> "conn fence node", "" -> owner who waits, "\n" -> newest fence.

local call, format, sub = redis.call, string.format, string.sub
local old = call('HGETALL', KEYS[1])
if #old == 0 then return 0 end
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local own, left = sub(KEYS[10], 1, -2), call('PTTL', KEYS[1])
local leases, infos, live, ids = call('ZRANGE', KEYS[5], 0, -1, 'WITHSCORES'),
    call('HGETALL', KEYS[6]), call('HGETALL', KEYS[7]), call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES')

-- From here on everything is written.
for from, to in pairs({[2] = 11, [3] = 12, [9] = 16}) do
  if call('EXISTS', KEYS[from]) == 1 then call('RENAME', KEYS[from], KEYS[to]) end
end
local epoch
for j = 1, #old, 2 do
  if old[j] == 'e' then epoch = old[j + 1] end
end
local lineage = sub(redis.sha1hex((epoch or '') .. ARGV[1]), 1, 12)
call('HSET', KEYS[10], unpack(old))
call('HSET', KEYS[10], 'l', lineage)
call('DEL', KEYS[13], KEYS[14])
call('RPUSH', KEYS[13], lineage .. ' *')

local seen, fences, newest, devices = {}, {}, 0, {}
for j = 1, #leases, 2 do seen[leases[j]] = math.min(tonumber(leases[j + 1]), now) end
for j = 1, #live, 2 do
  if live[j] == '\n' then
    newest = tonumber(live[j + 1])
  elseif live[j] ~= '' then
    fences[live[j]] = string.match(live[j + 1], ' (%d+) ')
  end
end
for j = 1, #infos, 2 do
  local device = infos[j]
  devices[#devices + 1] = device
  call('HSET', KEYS[15], device, (fences[device] or '0') .. ' '
      .. format('%.0f', seen[device] or now) .. ' - -\n' .. infos[j + 1])
end
if newest > 0 then call('HSET', KEYS[10], 'g', format('%.0f', newest)) end

-- The longest device that begins the member; else up to the first colon.
table.sort(devices, function(a, b) return #a > #b end)
for j = 1, #ids, 2 do
  local device = string.match(ids[j], '^([^:]*):')
  for k = 1, #devices do
    if sub(ids[j], 1, #devices[k] + 1) == devices[k] .. ':' then
      device = devices[k]
      break
    end
  end
  if device then
    local score = clock[1] * 1000000 + tonumber(ids[j + 1]) % 1000000
    call('ZADD', own .. 'f:' .. device, format('%.0f', score), sub(ids[j], #device + 2))
    if left > 0 then call('PEXPIRE', own .. 'f:' .. device, left) end
  end
end

local handoffs = 'h:' .. string.match(KEYS[1], '^s:({[^}]*})')
local moved = 'h:' .. string.match(KEYS[10], '^s:(.*):m$')
local digests = call('ZRANGE', handoffs, 0, -1)
for j = 1, #digests do
  if call('EXISTS', handoffs .. ':' .. digests[j]) == 1 then
    call('RENAME', handoffs .. ':' .. digests[j], moved .. ':' .. digests[j])
  end
end
if #digests > 0 then call('RENAME', handoffs, moved) end
call('DEL', handoffs .. ':a', KEYS[1], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8],
    sub(KEYS[1], 1, -2) .. 'n')
if left > 0 then
  for _, key in ipairs({10, 13, 15}) do call('PEXPIRE', KEYS[key], left) end
end
return 1
