#!lua
-- Use a handoff token: release the source device, and give the state as it is now.
--
-- KEYS  1 m  meta   2 d  data   3 p  leases   4 o  device -> "conn fence node"; "\n" newest fence
--       5 n  nodes   6 h:{session}:<digest>  the token, see handoff_create.lua
--       7 h:{session}:a  the answer to the newest redemption of the session: a copy of the data,
--         with the digest in field ""
--       8 v  infos
-- ARGV  1 user   2 owner check (0 or 1)   3 digest   4 device that asks; "" stands for the target
--       5 re-read ms   6 our node
-- Returns {FROZEN} when it needs a state that is packed away (see thaw.lua), else
--         {status, source, target, version, epoch, fence of the source's connection or 0, state}.
--
-- Who is not the target changes nothing. The target may ask again for a while and gets the same
-- answer: the first one may have been lost on its way. Only the newest answer of a session is kept;
-- a token that was redeemed before another one is answered with the state of the moment.
-- The other nodes are told with "P", see messages.py.

local OK, NOT_FOUND, FORBIDDEN, FROZEN, NO_TOKEN, SPENT, EXPIRED, WRONG_DEVICE =
    0, 4, 5, 10, 21, 22, 23, 24
local call, format = redis.call, string.format
local clock = call('TIME')
local now_text = clock[1] .. format('%03d', math.floor(clock[2] / 1000))
local now = tonumber(now_text)
local meta = call('HMGET', KEYS[1], 'v', 'u', 'e', 'z')
if not meta[1] then return {NOT_FOUND} end
if ARGV[2] == '1' and meta[2] ~= ARGV[1] then return {FORBIDDEN} end
local token = call('HMGET', KEYS[6], 's', 't', 'x', 'r', 'v', 'e', 'f')
local source, target = token[1], token[2]
if not source then return {NO_TOKEN} end
local asks = ARGV[4] == '' and target or ARGV[4]

if token[4] then
  if asks ~= target or now >= tonumber(token[4]) then return {SPENT} end
  if call('HGET', KEYS[7], '') == ARGV[3] then
    return {OK, source, target, tonumber(token[5]), token[6], tonumber(token[7]),
        call('HGETALL', KEYS[7])}
  end
  if meta[4] then return {FROZEN} end
  return {OK, source, target, tonumber(meta[1]), meta[3], tonumber(token[7]),
      call('HGETALL', KEYS[2])}
end
if now >= tonumber(token[3]) then return {EXPIRED} end
if asks ~= target then return {WRONG_DEVICE} end
if meta[4] then return {FROZEN} end

local live = call('HMGET', KEYS[4], source, '\n')
local lease = call('ZSCORE', KEYS[3], source)
local nodes = call('ZRANGEBYSCORE', KEYS[5], '(' .. now_text, '+inf')
local known = call('HEXISTS', KEYS[8], source) == 1
local state = call('HGETALL', KEYS[2])
call('HLEN', KEYS[7])  -- for its type: nothing may fail after the first write
local fence, node = string.match(live[1] or '', ' (%d+) (%S+)$')

call('HSET', KEYS[6], 'r', format('%.0f', now + tonumber(ARGV[5])), 'v', meta[1], 'e', meta[3],
    'f', fence or '0')
call('DEL', KEYS[7])
if tonumber(ARGV[5]) > 0 then
  if #state > 0 then call('COPY', KEYS[2], KEYS[7], 'REPLACE') end
  call('HSET', KEYS[7], '', ARGV[3])
  call('PEXPIREAT', KEYS[7], format('%.0f', now + tonumber(ARGV[5])))
end
if known or fence then
  local least = format('%.0f', math.max(now, tonumber(live[2] or 0) + 1))
  if live[2] then call('HSET', KEYS[4], '\n', least) end
  call('HSET', KEYS[1], 'x' .. source, least)
  if call('HLEN', KEYS[1]) > 320 then
    local all, oldest, lowest = call('HGETALL', KEYS[1]), nil, nil
    for j = 1, #all, 2 do
      if string.sub(all[j], 1, 1) == 'x' and (not lowest or tonumber(all[j + 1]) < lowest) then
        oldest, lowest = all[j], tonumber(all[j + 1])
      end
    end
    if oldest then call('HDEL', KEYS[1], oldest) end
  end
end
if fence then
  call('HDEL', KEYS[4], source)
  if lease and tonumber(lease) > now then call('ZADD', KEYS[3], now_text, source) end
  local news = 'P' .. string.sub(KEYS[1], 4, -4) .. ' handoff ' .. fence .. ' ' .. meta[1] .. ' '
      .. #source .. '\n' .. source .. target
  nodes[#nodes + 1] = node
  local told = {[ARGV[6]] = true}
  for j = 1, #nodes do
    if not told[nodes[j]] then
      told[nodes[j]] = true
      call('PUBLISH', 'n:' .. nodes[j], news)
    end
  end
end
return {OK, source, target, tonumber(meta[1]), meta[3], tonumber(fence or 0), state}
