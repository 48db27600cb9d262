#!lua flags=allow-oom
-- Replace the note of calls that the latest comparison could not verify.
--
-- KEYS  1 voice:unverified  HASH: channel, or empty for all of them, -> JSON
-- ARGV  1 ttl ms   2.. fields and values

local call = redis.call
call('UNLINK', KEYS[1])
for i = 2, #ARGV, 2 do call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
if #ARGV > 1 then call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
