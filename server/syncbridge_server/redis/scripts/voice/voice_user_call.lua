#!lua
-- Note that a user was in the calls of channels; a key of another type begins anew.
--
-- KEYS  1 voice:u:<user>  ZSET channel -> ms at which the user was in its call at the latest
-- ARGV  1 channels of a user, at most   2 ttl ms   3.. ms and channel, of each

local call = redis.call
if call('TYPE', KEYS[1]).ok ~= 'zset' then call('UNLINK', KEYS[1]) end
call('ZADD', KEYS[1], 'GT', unpack(ARGV, 3))
call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[1] - 1)
call('PEXPIRE', KEYS[1], ARGV[2])
return 1
