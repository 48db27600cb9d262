#!lua flags=allow-oom
-- Remove webhooks that have taken effect.
--
-- KEYS  1 w, as in inbox_put
-- ARGV  1 group   2.. entries
-- Returns how many were removed.

local done = 0
for i = 2, #ARGV do
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
  done = done + redis.call('XDEL', KEYS[1], ARGV[i])
end
return done
