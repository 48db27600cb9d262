#!lua
-- Note a heartbeat of a call session: begin or renew its lease. Not a write of the call.
--
-- KEYS  1 call, 2 x, 3 due: as 1, 2 and 9 in call_create
-- ARGV  1 id   2 ttl ms   3 lease ms
-- Returns {status, the hash}: OK, NOT_FOUND, CONFLICT (the call has ended).

local OK, CONFLICT, NOT_FOUND = 0, 2, 4
local call, format = redis.call, string.format
local state = call('HGET', KEYS[1], 's')
call('ZCARD', KEYS[2])
call('ZCARD', KEYS[3])
if not state then return {NOT_FOUND} end
if state == 'terminated' then return {CONFLICT, call('HGETALL', KEYS[1])} end
local clock = call('TIME')
local now = tonumber(clock[1] .. format('%03d', math.floor(clock[2] / 1000)))
local forget, due = format('%.0f', now + ARGV[2]), format('%.0f', now + ARGV[3])
call('HSET', KEYS[1], 'l', format('%.0f', now) .. ' ' .. due)
call('PEXPIREAT', KEYS[1], forget)
call('ZADD', KEYS[2], forget, ARGV[1])
call('ZADD', KEYS[3], due, ARGV[1])
return {OK, call('HGETALL', KEYS[1])}
