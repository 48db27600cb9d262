#!lua
-- Change the state of a call session. The step that ends it records it in the ledger.
--
-- KEYS  1 call, 2 x, 3..8 indexes, 9 due, 10 ledger: as in call_create. Entries of the ledger are
--       <number>-0, without a gap: r when it was recorded, id, and of the call's hash what is no
--       detail.
-- ARGV  1 id   2 state   3 its number (0 to 2)   4 who   5 ttl ms   6 ms until it is ended
--       7 cause or ""   8 tag "created-writes" that it must have, or ""
--       9 "due": it ends because its time in 9 has come; with `cause` as the cause of one with a
--         lease, and 10 as that of another one
--       10 see 9   11.. states that it may follow
-- Returns {status, the hash, state before}: OK, DUPLICATE (it is in that state, or is not due),
-- NOT_FOUND, CONFLICT (the state does not follow), PRECONDITION (it has another tag).

local OK, DUPLICATE, CONFLICT, NOT_FOUND, PRECONDITION = 0, 1, 2, 4, 16
local call, format = redis.call, string.format
local held = call('HMGET', KEYS[1], 's', 'i', 'c', 'u', 'v', 'l')
local before = held[1]
for i = 2, 9 do call('ZCARD', KEYS[i]) end
call('XLEN', KEYS[10])
local clock = call('TIME')
local now = tonumber(clock[1] .. format('%03d', math.floor(clock[2] / 1000)))
local due = ARGV[9] == 'due'
if due and not before then call('ZREM', KEYS[9], ARGV[1]) end
if not before then return {NOT_FOUND} end
if due then
  local score = call('ZSCORE', KEYS[9], ARGV[1])
  if not score or tonumber(score) > now then
    return {DUPLICATE, call('HGETALL', KEYS[1]), before}
  end
end
if before == ARGV[2] then return {DUPLICATE, call('HGETALL', KEYS[1]), before} end
if ARGV[8] ~= '' and ARGV[8] ~= held[3] .. '-' .. (held[5] or 0) then
  return {PRECONDITION, call('HGETALL', KEYS[1]), before}
end
local allowed = false
for i = 11, #ARGV do allowed = allowed or ARGV[i] == before end
if not allowed then return {CONFLICT, call('HGETALL', KEYS[1]), before} end
local beat = held[6] and tonumber(held[6]:match('^%d+'))
local at, cause = math.max(now, tonumber(held[4])), ARGV[7]
if due then
  at = math.max(beat or 0, tonumber(held[4]))
  cause = beat and ARGV[7] or ARGV[10]
end
at = format('%.0f', at)
call('HSET', KEYS[1], 's', ARGV[2], 'u', at, ARGV[2], at .. ' ' .. ARGV[4])
call('HINCRBY', KEYS[1], 'v', 1)
if cause ~= '' then call('HSET', KEYS[1], 'cause', cause) end
if not due or beat then
  local forget = format('%.0f', now + ARGV[5])
  call('PEXPIREAT', KEYS[1], forget)
  call('ZADD', KEYS[2], forget, ARGV[1])
end
for i = 3, 8 do call('ZREM', KEYS[i], ARGV[1]) end
--@ put(string.match(KEYS[1], '{[^}]*}'), 'call_session.changed', 'i', ARGV[1], 'v', ARGV[2],
--@     'f', before, 'w', ARGV[4], 'r', cause)
call('ZADD', KEYS[3 + held[2] + ARGV[3]], held[3], ARGV[1])
if ARGV[2] ~= 'terminated' then
  if not beat then call('ZADD', KEYS[9], format('%.0f', now + ARGV[6]), ARGV[1]) end
  return {OK, call('HGETALL', KEYS[1]), before}
end
call('ZREM', KEYS[9], ARGV[1])
call('HDEL', KEYS[1], 'l')
local all, entry, last = call('HGETALL', KEYS[1]), {'r', format('%.0f', now), 'id', ARGV[1]}, 0
for i = 1, #all, 2 do
  if not all[i]:find('^[.#k]') then
    entry[#entry + 1] = all[i]
    entry[#entry + 1] = all[i + 1]
  end
end
if call('EXISTS', KEYS[10]) == 1 then
  local about = call('XINFO', 'STREAM', KEYS[10])
  for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' then last = tonumber(about[i + 1]:match('^%d+')) end
  end
end
call('XADD', KEYS[10], format('%.0f-0', last + 1), unpack(entry))
return {OK, all, before}
