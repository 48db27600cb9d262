#!lua
-- Store a handoff token under its digest.
-- Format 2; docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH   2 h:T:S:<digest>  HASH: s source, t target, x expires ms; once redeemed
--         also v version, e epoch, l lineage, f fence of the source's connection, r re-read until
--       3 h:T:S  ZSET digest -> expires ms, of the tokens of the session
--       with old data last the old meta key
-- ARGV  1 flags: 1 owner check, 8 old data   2 user   3 source   4 target   5 digest   6 life ms
--       7 how long an expired token is remembered, ms   8 most tokens of a session
-- Returns {status, expires ms, digests of tokens that are too many now, oldest first}.

local OK, NOT_FOUND, FORBIDDEN, OLD = 0, 4, 5, 14
local call, format = redis.call, string.format
local flags = tonumber(ARGV[1])
local meta = call('HMGET', KEYS[1], 'v', 'u')
if not meta[1] then
  if flags % 16 > 7 and call('EXISTS', KEYS[#KEYS]) == 1 then return {OLD} end
  return {NOT_FOUND}
end
if flags % 2 == 1 and meta[2] ~= ARGV[2] then return {FORBIDDEN} end
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local expires, forget = now + tonumber(ARGV[6]), now + ARGV[6] + ARGV[7]
call('HLEN', KEYS[2])  -- for its type: nothing may fail after the first write
call('ZREMRANGEBYSCORE', KEYS[3], '-inf', format('%.0f', now - tonumber(ARGV[7])))
call('ZADD', KEYS[3], format('%.0f', expires), ARGV[5])
call('PEXPIREAT', KEYS[3], format('%.0f', forget))
call('HSET', KEYS[2], 's', ARGV[3], 't', ARGV[4], 'x', format('%.0f', expires))
call('PEXPIREAT', KEYS[2], format('%.0f', forget))
local spare, dropped = call('ZCARD', KEYS[3]) - tonumber(ARGV[8]), {}
if spare > 0 then
  dropped = call('ZRANGE', KEYS[3], 0, spare - 1)
  call('ZREMRANGEBYRANK', KEYS[3], 0, spare - 1)
end
--@ told('handoff.created', 'u', meta[2], 'a', ARGV[3], 'b', ARGV[4], 'x', format('%.0f', expires))
return {OK, expires, dropped}
