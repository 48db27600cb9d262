#!lua
-- Append what an outbox had to the log of events.
--
-- KEYS  1 ev:{events}:log  STREAM, entries "<ms>-<number>": e the event
--       2 ev:{events}:at   HASH tag -> "entry number" up to which its outbox was carried;
--         #n number of the last event, #t its ms, #b bytes of the log
-- ARGV  1 tag   2 its place as it was read, or ""   3 its place now   4 most events   5 most bytes
--       6.. events
-- Returns {1, events that were dropped}, or {0, its place} when that is another one.
-- The place moves with the events, so that a repeated call does nothing. Numbers have no gaps: a
-- reader sees by them what was dropped.

local call, format = redis.call, string.format
local about = call('HMGET', KEYS[2], ARGV[1], '#n', '#t', '#b')
if (about[1] or '') ~= ARGV[2] then return {0, about[1] or ''} end
local clock = call('TIME')
local ms = math.max(clock[1] * 1000 + math.floor(clock[2] / 1000), tonumber(about[3] or 0))
local number, bytes, dropped = tonumber(about[2] or 0), tonumber(about[4] or 0), 0
call('XLEN', KEYS[1])  -- for its type: nothing may fail after the first write
for j = 6, #ARGV do
  number, bytes = number + 1, bytes + #ARGV[j]
  call('XADD', KEYS[1], format('%.0f-%.0f', ms, number), 'e', ARGV[j])
end
local length = call('XLEN', KEYS[1])
while length > tonumber(ARGV[4]) or (bytes > tonumber(ARGV[5]) and length > 1) do
  local oldest = call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  bytes = bytes - #(oldest[2][2] or '')
  call('XDEL', KEYS[1], oldest[1])
  length, dropped = length - 1, dropped + 1
end
if length == 0 then bytes = 0 end
call('HSET', KEYS[2], ARGV[1], ARGV[3], '#n', format('%.0f', number), '#t', format('%.0f', ms),
    '#b', format('%.0f', bytes))
return {1, dropped}
