#!lua
-- Somebody reads events: they are to be written for a while.
--
-- KEYS  1 ev:{events}:state  HASH: since (microseconds, names the time in which they are written),
--         until (ms), values (ms until which values are wanted too), settled (the `since` in which
--         every node was known to write them)
-- ARGV  1 ms for which they are to be written   2 ms for which values are wanted, or 0
-- Returns {since, until, values until, settled}.

local call, format = redis.call, string.format
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local state = call('HMGET', KEYS[1], 'since', 'until', 'values', 'settled')
local since = state[1] or format('%.0f', clock[1] * 1000000 + clock[2])
local ends = format('%.0f', math.max(tonumber(state[2] or 0), now + ARGV[1]))
local values = state[3] or '0'
if ARGV[2] ~= '0' then values = format('%.0f', math.max(tonumber(values), now + ARGV[2])) end
call('HSET', KEYS[1], 'since', since, 'until', ends, 'values', values)
return {since, ends, values, state[4] or ''}
