#!lua flags=allow-oom
-- Take webhooks: first those that a node took and did not finish, then new ones.
--
-- KEYS  1 w, 2 told: 1 and 3 of inbox_put
-- ARGV  1 group   2 our name   3 most   4 idle ms after which one is lost
--       5 idle ms after which a taker who has nothing is forgotten
-- Returns {entry, times it was taken, {field, value, ...}, entry, ...}.
-- A missing group (a Redis that lost its data) is created from the first entry on: webhooks that
-- have taken effect are no longer in the stream.

local call = redis.call
local group, most = ARGV[1], tonumber(ARGV[3])
call('GET', KEYS[2])
if call('EXISTS', KEYS[1]) == 0 then
  call('UNLINK', KEYS[2])
  return {}
end
local known = false
for _, info in ipairs(call('XINFO', 'GROUPS', KEYS[1])) do known = known or info[2] == group end
if not known then call('XGROUP', 'CREATE', KEYS[1], group, '0') end

local taken = {}
local function take(id, times, fields)
  taken[#taken + 1] = id
  taken[#taken + 1] = times
  taken[#taken + 1] = fields
end
for _, lost in ipairs(call('XPENDING', KEYS[1], group, 'IDLE', ARGV[4], '-', '+', most)) do
  local id = lost[1]
  local there = call('XRANGE', KEYS[1], id, id)[1]
  if there then
    call('XCLAIM', KEYS[1], group, ARGV[2], 0, id)
    take(id, lost[4] + 1, there[2])
  else
    call('XACK', KEYS[1], group, id)
  end
end
local left = most - #taken / 3
if left <= 0 then return taken end
local new = call('XREADGROUP', 'GROUP', group, ARGV[2], 'COUNT', left, 'STREAMS', KEYS[1], '>')
new = new and new[1][2] or {}
for _, entry in ipairs(new) do take(entry[1], 1, entry[2]) end
if #new < left then call('UNLINK', KEYS[2]) end
if #taken == 0 then
  for _, info in ipairs(call('XINFO', 'CONSUMERS', KEYS[1], group)) do
    local name, pending, idle = info[2], info[4], info[6]
    if pending == 0 and idle > tonumber(ARGV[5]) and name ~= ARGV[2] then
      call('XGROUP', 'DELCONSUMER', KEYS[1], group, name)
    end
  end
end
return taken
