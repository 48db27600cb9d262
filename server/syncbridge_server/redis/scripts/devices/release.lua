#!lua flags=allow-oom
-- Phase two of a sweep: release checked sessions; those with running leases are entered again.
--
-- KEYS  1 px:{bucket}    ZSET session -> when a lease there may be over, ms
--       2 px:{bucket}:c  ZSET session -> until when it is claimed, ms
-- ARGV  session, when it is due or 0, session, ...

for j = 1, #ARGV, 2 do
  if ARGV[j + 1] ~= '0' then redis.call('ZADD', KEYS[1], 'LT', ARGV[j + 1], ARGV[j]) end
  redis.call('ZREM', KEYS[2], ARGV[j])
end
redis.call('PEXPIRE', KEYS[1], 604800000)
return 0
