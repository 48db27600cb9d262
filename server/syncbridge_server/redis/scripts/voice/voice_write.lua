#!lua
-- Write a voice channel if it is as it was read, and notify every node.
--
-- KEYS  1 voice:{bucket}:c:<id>  HASH: r revision, t token of the write that made it, d the record
--       2 voice:{bucket}:due   ZSET id -> ms at which somebody is to look at the channel
--       3 voice:{bucket}:live  ZSET id -> ms after which the channel is forgotten
--       4 voice:{bucket}:f:<id>  LIST of finals, the latest first
--       5 voice:{bucket}:t:<id>  STREAM: what was said and what it changed, e an entry
-- ARGV  1 revision that was read; 0 for none   2 token of this write   3 the record   4 id
--       5 due ms, or empty   6 live (0 or 1)   7 ttl ms   8 ttl of finals, ms   9 most finals
--       10 channel of all nodes   11 and 12 the news before and after its revision
--       13 entries of the timeline, at least   14 ttl of the timeline, ms   15 how many follow
--       16.. entries, the earliest first, then finals, the earliest first; while events are
--         written, then of each event its kind, user and data, the waddle, and at last their number
-- Returns the new revision, or 0: somebody else has written. A write sent twice is done once.
-- A timeline of the wrong type begins anew: it does not prevent the write. The revision of a new
-- channel begins at the time in microseconds, so no revision of an id is reused after the channel
-- expired. In the news a revision has 16 digits, which fixes lengths computed before it is known.

local call, format = redis.call, string.format
local held = call('HMGET', KEYS[1], 'r', 't')
for i = 2, 3 do call('ZCARD', KEYS[i]) end  -- for its type: nothing may fail after the first write
call('LLEN', KEYS[4])
if (held[1] or '0') ~= ARGV[1] then
  return held[2] == ARGV[2] and tonumber(held[1]) or 0
end
local clock = call('TIME')
local now = tonumber(clock[1] .. format('%03d', math.floor(clock[2] / 1000)))
local revision = held[1] and held[1] + 1 or clock[1] * 1000000 + clock[2]
call('HSET', KEYS[1], 'r', format('%.0f', revision), 't', ARGV[2], 'd', ARGV[3])
call('PEXPIRE', KEYS[1], ARGV[7])
if ARGV[5] == '' then
  call('ZREM', KEYS[2], ARGV[4])
else
  call('ZADD', KEYS[2], ARGV[5], ARGV[4])
end
call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. format('%.0f', now))
if ARGV[6] == '1' then
  call('ZADD', KEYS[3], format('%.0f', now + ARGV[7]), ARGV[4])
else
  call('ZREM', KEYS[3], ARGV[4])
end
local finals, last = 16 + ARGV[15], #ARGV
--@ last = last - 2 - 3 * ARGV[last]
if finals > 16 and call('TYPE', KEYS[5]).ok ~= 'stream' then call('UNLINK', KEYS[5]) end
for i = 16, finals - 1 do call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[13], '*', 'e', ARGV[i]) end
if finals > 16 then call('PEXPIRE', KEYS[5], ARGV[14]) end
if last >= finals then
  for i = finals, last do call('LPUSH', KEYS[4], ARGV[i]) end
  call('LTRIM', KEYS[4], 0, ARGV[9] - 1)
  call('PEXPIRE', KEYS[4], ARGV[8])
end
--@ for i = last + 1, #ARGV - 2, 3 do
--@   local tag = string.match(KEYS[1], '{[^}]*}')
--@   put(tag, ARGV[i], 'c', ARGV[4], 'W', ARGV[#ARGV - 1], 'u', ARGV[i + 1], 'j', ARGV[i + 2])
--@ end
redis.pcall('SPUBLISH', ARGV[10], ARGV[11] .. format('%16.0f', revision) .. ARGV[12])
return revision
