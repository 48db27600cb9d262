#!lua flags=allow-oom
-- Delete a call session. Its states, events and their times are kept until the call would have
-- expired: billing may read them later. A call that has not ended is recorded in the ledger, by the
-- same step.
--
-- KEYS  1 call, 2 x, 3..8 indexes, 9 due, 10 ledger, 11 rel, 12 relof: as in call_create
--       13 past:{bucket}:<id>  STREAM of the calls that had the id, as entries of the ledger
-- ARGV  1 id   2 who   3 tag "created-writes" that it must have, or ""   4 most entries of 13
-- Returns {status, the hash as it was}: OK, NOT_FOUND, PRECONDITION (it has another tag).

local OK, NOT_FOUND, PRECONDITION = 0, 4, 16
local call, format = redis.call, string.format
local held = call('HGETALL', KEYS[1])
for i = 2, 9 do call('ZCARD', KEYS[i]) end
call('XLEN', KEYS[10])
call('ZCARD', KEYS[11])
call('HLEN', KEYS[12])
call('XLEN', KEYS[13])
if #held == 0 then return {NOT_FOUND} end
local clock = call('TIME')
local now = tonumber(clock[1] .. format('%03d', math.floor(clock[2] / 1000)))
local kept = call('HMGET', KEYS[1], 'c', 'v', 'u', 's')
if ARGV[3] ~= '' and ARGV[3] ~= kept[1] .. '-' .. (kept[2] or 0) then
  return {PRECONDITION, held}
end
local at = format('%.0f', math.max(now, tonumber(kept[3])))
local entry, last = {'r', format('%.0f', now), 'id', ARGV[1], 'd', at .. ' ' .. ARGV[2]}, 0
for i = 1, #held, 2 do
  if not held[i]:find('^[.#kl]') then
    entry[#entry + 1] = held[i]
    entry[#entry + 1] = held[i + 1]
  end
end
local expiry = math.max(call('PEXPIRETIME', KEYS[1]), call('PEXPIRETIME', KEYS[13]))
call('XADD', KEYS[13], 'MAXLEN', ARGV[4], '*', unpack(entry))
if expiry > 0 then call('PEXPIREAT', KEYS[13], format('%.0f', expiry)) end
if kept[4] ~= 'terminated' then
  if call('EXISTS', KEYS[10]) == 1 then
    local about = call('XINFO', 'STREAM', KEYS[10])
    for i = 1, #about, 2 do
      if about[i] == 'last-generated-id' then last = tonumber(about[i + 1]:match('^%d+')) end
    end
  end
  call('XADD', KEYS[10], format('%.0f-0', last + 1), unpack(entry))
end
call('DEL', KEYS[1])
for i = 2, 9 do call('ZREM', KEYS[i], ARGV[1]) end
for _, field in ipairs({'parent', 'channel'}) do
  local member = call('HGET', KEYS[12], field .. '\0' .. ARGV[1])
  if member then
    call('ZREM', KEYS[11], member)
    call('HDEL', KEYS[12], field .. '\0' .. ARGV[1])
  end
end
--@ put(string.match(KEYS[1], '{[^}]*}'), 'call_session.deleted', 'i', ARGV[1], 'w', ARGV[2])
return {OK, held}
