#!lua
-- Keep a webhook until it has taken effect, unless it was kept before.
--
-- KEYS  1 inbox:{inbox}:w     STREAM of pending webhooks: i delivery id, t received ms, b body, p
-- traceparent 2 inbox:{inbox}:seen  ZSET digest of a delivery id -> microsecond in which it was
-- kept 3 inbox:{inbox}:told  STRING: nodes were notified, and none has looked since ARGV  1 digest
-- 2 delivery id   3 received ms   4 body   5 most that wait 6 how long a digest is remembered, ms 7
-- most digests   8 channel of all nodes 9 what they are told   10 ms after which they are told
-- again 11 why it cannot be taken in, or empty: it will be a dead letter 12 traceparent, or empty
-- Returns 1, 0 (kept before), -1 (too many wait).

local call, format = redis.call, string.format
local seen = call('ZSCORE', KEYS[2], ARGV[1])
local waiting = call('XLEN', KEYS[1])
local told = call('GET', KEYS[3])  -- also for its type: nothing may fail after the first write
if seen then return 0 end
if waiting >= tonumber(ARGV[5]) then return -1 end
local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]
local fields = {'i', ARGV[2], 't', ARGV[3], 'b', ARGV[4]}
if ARGV[11] ~= '' then
  fields[7] = 'r'
  fields[8] = ARGV[11]
end
if ARGV[12] ~= '' then
  fields[#fields + 1] = 'p'
  fields[#fields + 1] = ARGV[12]
end
call('XADD', KEYS[1], '*', unpack(fields))
call('ZADD', KEYS[2], format('%.0f', now), ARGV[1])
call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. format('%.0f', now - ARGV[6] * 1000))
call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - ARGV[7])
call('PEXPIRE', KEYS[2], ARGV[6])
if not told then
  call('SET', KEYS[3], '1', 'PX', ARGV[10])
  redis.pcall('SPUBLISH', ARGV[8], ARGV[9])
end
return 1
