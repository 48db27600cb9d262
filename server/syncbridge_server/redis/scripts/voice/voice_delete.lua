#!lua flags=allow-oom
-- Delete a voice channel if it is as it was read, and notify every node. Its finals stay.
--
-- KEYS  1 channel, 2 due, 3 live: as in voice_write
-- ARGV  1 revision that was read; 0 for none   2 id   3 channel of all nodes   4 and 5 the news
--       before and after its revision, which follows the one that was read
-- Returns 1, or 0: somebody else has written.

local call, format = redis.call, string.format
local held = call('HGET', KEYS[1], 'r')
for i = 2, 3 do call('ZCARD', KEYS[i]) end
if (held or '0') ~= ARGV[1] then return 0 end
call('UNLINK', KEYS[1])
for i = 2, 3 do call('ZREM', KEYS[i], ARGV[2]) end
if held then redis.pcall('SPUBLISH', ARGV[3], ARGV[4] .. format('%16.0f', held + 1) .. ARGV[5]) end
return 1
