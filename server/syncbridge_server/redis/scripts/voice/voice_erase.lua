#!lua flags=allow-oom
-- Delete a voice channel that is neither due nor live. Its finals stay.
--
-- KEYS  1 channel, 2 due, 3 live: as in voice_write
-- ARGV  1 id
-- Returns 1, or 0: it is due or live again, or there is none.

local call = redis.call
for i = 2, 3 do
  if call('ZSCORE', KEYS[i], ARGV[1]) then return 0 end
end
return call('UNLINK', KEYS[1])
