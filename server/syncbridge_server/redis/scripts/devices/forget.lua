#!lua flags=allow-oom
-- Drop sessions from a user's index.
--
-- KEYS  1 u:{user}  ZSET session -> last activity ms
-- ARGV  sessions

return redis.call('ZREM', KEYS[1], unpack(ARGV))
