#!lua
-- Append what some outboxes had to the log of events.
--
-- KEYS  1 ev:{events}:log  STREAM, entries "<ms>-<number>": e the event
--       2 ev:{events}:at   HASH tag -> "entry number" up to which its outbox was carried;
--         #n number of the last event, #t its ms, #b bytes of the log
-- ARGV  1 most events   2 most bytes   3 number of outboxes   then the tag of each,
--       then of each: its place as it was read, or "", its place now, number of events, events
-- Returns {events that were dropped, for each outbox "" or, when that is another one and nothing
-- was done for it, its place}.
-- A place moves with the events, so that a repeated call does nothing. Numbers have no gaps: a
-- reader sees by them what was dropped.

local call, format, PART = redis.call, string.format, 64
local outboxes = tonumber(ARGV[3])
local places = call('HMGET', KEYS[2], '#n', '#t', '#b', unpack(ARGV, 4, 3 + outboxes))
local clock = call('TIME')
local ms = math.max(clock[1] * 1000 + math.floor(clock[2] / 1000), tonumber(places[2] or 0))
local number, bytes, answer = tonumber(places[1] or 0), tonumber(places[3] or 0), {0}
local length = call('XLEN', KEYS[1])  -- also for its type: nothing may fail after the first write
local at, moved, stamp = 4 + outboxes, {}, format('%.0f-', ms)
for outbox = 1, outboxes do
  local count, place = tonumber(ARGV[at + 2]), places[3 + outbox] or ''
  if place == ARGV[at] then
    for j = at + 3, at + 2 + count do
      number, bytes = number + 1, bytes + #ARGV[j]
      call('XADD', KEYS[1], stamp .. format('%.0f', number), 'e', ARGV[j])
    end
    length = length + count
    moved[#moved + 1] = ARGV[3 + outbox]
    moved[#moved + 1] = ARGV[at + 1]
    answer[#answer + 1] = ''
  else
    answer[#answer + 1] = place == '' and '0-0 0' or place
  end
  at = at + 3 + count
end
local most, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
while length > most or (bytes > most_bytes and length > 1) do
  local oldest, gone = call('XRANGE', KEYS[1], '-', '+', 'COUNT', PART), 0
  while gone < #oldest and (length > most or (bytes > most_bytes and length > 1)) do
    gone, length = gone + 1, length - 1
    bytes = bytes - #(oldest[gone][2][2] or '')
  end
  answer[1] = answer[1] + call('XTRIM', KEYS[1], 'MAXLEN', length)
end
if length == 0 then bytes = 0 end
call('HSET', KEYS[2], '#n', format('%.0f', number), '#t', format('%.0f', ms),
    '#b', format('%.0f', bytes), unpack(moved))
return answer
