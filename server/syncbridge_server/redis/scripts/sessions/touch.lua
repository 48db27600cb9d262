#!lua flags=allow-oom
-- Renew the presence of this node's devices in one session, and the life of the session.
--
-- KEYS  1 m  meta   2 d  data   3 k  versions   4 i  mutations   5 p  leases   6 v  infos
--       7 o  device -> "conn fence node"   8 n  nodes   9 z  packed state of a frozen session
-- ARGV  1 node   2 presence ms   3 ttl ms   4 ttl ms while there is no session   5.. devices
-- Returns {version, epoch, lost}; 0 and "" when the session does not exist.
-- Only devices whose live connection is on this node are renewed: one that has left, was
-- forgotten or has moved on is not brought back by a late touch, but named in `lost`:
-- {device, its live connection or "", the least fence with which it may write}.
-- A node that has only lost devices stays registered as long as it is: they still read.

local call, format = redis.call, string.format
local CHUNK, HOUR = 3000, 3600000
local clock = call('TIME')
local now_text = clock[1] .. format('%03d', math.floor(clock[2] / 1000))
local now = tonumber(now_text)
local meta = call('HMGET', KEYS[1], 'v', 'e', 't')
local exists = meta[1] ~= false
local ttl = tonumber(exists and ARGV[3] or ARGV[4])
local lease, expiry = format('%.0f', now + tonumber(ARGV[2])), format('%.0f', now + ttl)
local suffix, renewed, lost = ' ' .. ARGV[1], {}, {}
for from = 5, #ARGV, CHUNK do
  local last = math.min(from + CHUNK - 1, #ARGV)
  local where = call('HMGET', KEYS[7], unpack(ARGV, from, last))
  for j = 1, #where do
    if where[j] and string.sub(where[j], -#suffix) == suffix then
      renewed[#renewed + 1] = lease
      renewed[#renewed + 1] = ARGV[from + j - 1]
    else
      local device = ARGV[from + j - 1]
      lost[#lost + 1] = device
      lost[#lost + 1] = where[j] or ''
      lost[#lost + 1] = tonumber(call('HGET', KEYS[1], 'x' .. device) or 0)
    end
  end
end
local left = call('PTTL', KEYS[6])
local registered = tonumber(call('ZSCORE', KEYS[8], ARGV[1]) or 0) > now
if #renewed > 0 or (#lost > 0 and registered) then
  call('ZREMRANGEBYSCORE', KEYS[8], '-inf', now_text)
  call('ZADD', KEYS[8], lease, ARGV[1])
  call('PEXPIREAT', KEYS[8], expiry)
  for from = 1, #renewed, CHUNK do
    local last = math.min(from + CHUNK - 1, #renewed)
    call('ZADD', KEYS[5], 'XX', unpack(renewed, from, last))
  end
end
if left < ttl - math.min(HOUR, ttl / 2) then
  for j = 5, 7 do call('PEXPIREAT', KEYS[j], expiry) end
end
if exists and now - tonumber(meta[3] or 0) > HOUR then
  call('HSET', KEYS[1], 't', now_text)
  for j = 1, 4 do call('PEXPIREAT', KEYS[j], expiry) end
  call('PEXPIREAT', KEYS[9], expiry)
end
return {tonumber(meta[1] or 0), meta[2] or '', lost}
