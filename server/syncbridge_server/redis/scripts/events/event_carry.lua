#!lua
-- Append what some outboxes had to the log of events.
--
-- KEYS  1 ev:{events}:log  STREAM, entries "<ms>-<number>": e the event
--       2 ev:{events}:at   HASH tag -> "entry number" up to which its outbox was carried;
--         #n number of the last event, #t its ms, #b bytes of the log
-- ARGV  1 most events   2 most bytes
--       then of each outbox: tag, its place as it was read, or "", its place now, number of events,
--       events
-- Returns {events that were dropped, for each outbox "" or, when that is another one and nothing
-- was done for it, its place}.
-- A place moves with the events, so that a repeated call does nothing. Numbers have no gaps: a
-- reader sees by them what was dropped.

local call, format = redis.call, string.format
local about = call('HMGET', KEYS[2], '#n', '#t', '#b')
local clock = call('TIME')
local ms = math.max(clock[1] * 1000 + math.floor(clock[2] / 1000), tonumber(about[2] or 0))
local number, bytes, answer = tonumber(about[1] or 0), tonumber(about[3] or 0), {0}
local length = call('XLEN', KEYS[1])  -- also for its type: nothing may fail after the first write
local at = 3
while at <= #ARGV do
  local count, place = tonumber(ARGV[at + 3]), call('HGET', KEYS[2], ARGV[at]) or ''
  if place == ARGV[at + 1] then
    for j = at + 4, at + 3 + count do
      number, bytes, length = number + 1, bytes + #ARGV[j], length + 1
      call('XADD', KEYS[1], format('%.0f-%.0f', ms, number), 'e', ARGV[j])
    end
    call('HSET', KEYS[2], ARGV[at], ARGV[at + 2])
    answer[#answer + 1] = ''
  else
    answer[#answer + 1] = place == '' and '0-0 0' or place
  end
  at = at + 4 + count
end
while length > tonumber(ARGV[1]) or (bytes > tonumber(ARGV[2]) and length > 1) do
  local oldest = call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  bytes = bytes - #(oldest[2][2] or '')
  call('XDEL', KEYS[1], oldest[1])
  length, answer[1] = length - 1, answer[1] + 1
end
if length == 0 then bytes = 0 end
call('HSET', KEYS[2], '#n', format('%.0f', number), '#t', format('%.0f', ms),
    '#b', format('%.0f', bytes))
return answer
