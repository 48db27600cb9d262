#!lua flags=allow-oom
-- Publish to every other node that has devices in a session.
-- Format 2; docs/decisions/0009-the-layout-of-redis.md.
--
-- KEYS  1 m  meta HASH
-- ARGV  1 our node   2 payload
-- Returns the number of nodes told.

local channel, told = string.match(KEYS[1], '^s:({[^}]*}:)'), 0
for name in string.gmatch(redis.call('HGET', KEYS[1], 's') or '', '%S+') do
  if name ~= ARGV[1] then
    redis.call('SPUBLISH', channel .. name, ARGV[2])
    told = told + 1
  end
end
return told
