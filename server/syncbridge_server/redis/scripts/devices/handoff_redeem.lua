#!lua
-- Redeem a handoff token: release the source device, and return the current state. Format 2;
-- docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH   2 h:T:S:<digest>  the token, see handoff_create.lua
--       3 h:T:S:a  the answer to the newest redemption of the session: a copy of the data, with
--         the digest in field ""
--       with old data last the old meta key
-- ARGV  1 flags: 1 owner check, 8 old data   2 user   3 digest
--       4 device that asks; "" stands for the target   5 re-read ms   6 our node
-- Returns {status, source, target, version, epoch, lineage, fence of the source's connection or 0,
--          flat state}.
--
-- Any other device than the target changes nothing. The target may repeat the call for a while and
-- gets the same answer: the first one may have been lost. Only the newest answer of a session is
-- kept; a token redeemed before another one is answered with the current state.

local MOST_BARRED = 320
local OK, NOT_FOUND, FORBIDDEN, FROZEN, OLD, NO_TOKEN, SPENT, EXPIRED, WRONG_DEVICE =
    0, 4, 5, 10, 14, 21, 22, 23, 24
local call, format, sub, match = redis.call, string.format, string.sub, string.match
local flags, own = tonumber(ARGV[1]), sub(KEYS[1], 1, -2)
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local meta = call('HMGET', KEYS[1], 'v', 'u', 'e', 'l', 'z', 's', 'b', 'g')
if not meta[1] then
  if flags % 16 > 7 and call('EXISTS', KEYS[#KEYS]) == 1 then return {OLD} end
  return {NOT_FOUND}
end
if flags % 2 == 1 and meta[2] ~= ARGV[2] then return {FORBIDDEN} end
local frozen = meta[5] == '1' or meta[5] == '3'
local token = call('HMGET', KEYS[2], 's', 't', 'x', 'r', 'v', 'e', 'l', 'f')
local source, target = token[1], token[2]
if not source then return {NO_TOKEN} end
local asks = ARGV[4] == '' and target or ARGV[4]

if token[4] then
  if asks ~= target or now >= tonumber(token[4]) then return {SPENT} end
  if call('HGET', KEYS[3], '') == ARGV[3] then
    return {OK, source, target, tonumber(token[5]), token[6], token[7] or '', tonumber(token[8]),
        call('HGETALL', KEYS[3])}
  end
  if frozen then return {FROZEN} end
  return {OK, source, target, tonumber(meta[1]), meta[3], meta[4], tonumber(token[8]),
      call('HGETALL', own .. 'd')}
end
if now >= tonumber(token[3]) then return {EXPIRED} end
if asks ~= target then return {WRONG_DEVICE} end
if frozen then return {FROZEN} end

local record = call('HGET', own .. 'o', source)
local fence, node, info = match(record or '', '^(%d+) %d+ (%S+) [^\n]*\n(.*)$')
local live, online = node and node ~= '-', tonumber(meta[7] or 0)
local state = call('HGETALL', own .. 'd')
call('HLEN', KEYS[3])  -- for its type: nothing may fail after the first write

call('HSET', KEYS[2], 'r', format('%.0f', now + tonumber(ARGV[5])), 'v', meta[1], 'e', meta[3],
    'l', meta[4], 'f', live and fence or '0')
call('DEL', KEYS[3])
if tonumber(ARGV[5]) > 0 then
  if #state > 0 then call('COPY', own .. 'd', KEYS[3], 'REPLACE') end
  call('HSET', KEYS[3], '', ARGV[3])
  call('PEXPIREAT', KEYS[3], format('%.0f', now + tonumber(ARGV[5])))
end
if record then
  local least = format('%.0f', math.max(now, tonumber(meta[8] or 0) + 1))
  meta[8] = least
  call('HSET', KEYS[1], 'g', least, 'x' .. source, least)
  if call('HLEN', KEYS[1]) > MOST_BARRED then
    local all, count, oldest, lowest = call('HGETALL', KEYS[1]), 0, nil, nil
    for j = 1, #all, 2 do
      if sub(all[j], 1, 1) == 'x' then
        count = count + 1
        if not lowest or tonumber(all[j + 1]) < lowest then
          oldest, lowest = all[j], tonumber(all[j + 1])
        end
      end
    end
    if count > MOST_BARRED then call('HDEL', KEYS[1], oldest) end
  end
end
if live then
  online = math.max(online - 1, 0)
  call('HSET', KEYS[1], 'b', online)
  call('HSET', own .. 'o', source, fence .. ' ' .. format('%.0f', now) .. ' - -\n' .. info)
  local channel, told = match(KEYS[1], '^s:({[^}]*}:)'), {[ARGV[6]] = true}
  local news = 'P2 ' .. sub(KEYS[1], -38, -3) .. ' handoff ' .. fence .. ' ' .. meta[1] .. ' '
      .. online .. ' ' .. meta[8] .. ' ' .. #source .. '\n' .. source .. target
  for name in string.gmatch((meta[6] or '') .. ' ' .. node, '%S+') do
    if not told[name] then
      told[name] = true
      redis.pcall('SPUBLISH', channel .. name, news)
    end
  end
end
--@ told('handoff.redeemed', 'u', meta[2], 'a', source, 'b', target, 'v', meta[1])
--@ if live then told_device('handoff', meta[2], source, online) end
return {OK, source, target, tonumber(meta[1]), meta[3], meta[4], tonumber(live and fence or 0),
    state}
