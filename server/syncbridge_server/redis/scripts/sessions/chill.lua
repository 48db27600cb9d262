#!lua flags=no-writes
-- Is a session to be frozen now? If it is, its state, to be packed. Reads only.
--
-- KEYS  1 m  meta   2 d  data   3 k  versions   4 p  ZSET device -> lease ms
-- ARGV  1 least bytes of a state that is worth it   2 ms without a write and without a device
--       3 bytes of a large state   4 ms without a write after which it is frozen anyhow
--       5 ms after which a state that is too small is looked at again
-- Returns {GONE} for a session that does not exist or is frozen, {LATER, when, ms},
--         or {READY, version, epoch, flat state, flat key and version}.

local GONE, LATER, READY = 0, 1, 2
local call = redis.call
local clock = call('TIME')
local now = tonumber(clock[1] .. string.format('%03d', math.floor(clock[2] / 1000)))
local meta = call('HMGET', KEYS[1], 'v', 'e', 'm', 'n', 'z')
if not meta[1] or meta[5] then return {GONE} end
local written, bytes = tonumber(meta[3] or 0), tonumber(meta[4] or 0)
local seen = tonumber(call('ZREVRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2] or 0)
local large = bytes > tonumber(ARGV[3])
local due
if bytes < tonumber(ARGV[1]) then
  due = now + tonumber(ARGV[5])
elseif seen > now then
  due = large and written + tonumber(ARGV[4]) or now + tonumber(ARGV[2])
else
  due = math.max(written, seen) + tonumber(ARGV[2])
  if large then due = math.min(due, written + tonumber(ARGV[4])) end
end
if due > now then return {LATER, due} end
return {READY, meta[1], meta[2], call('HGETALL', KEYS[2]),
    call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES')}
