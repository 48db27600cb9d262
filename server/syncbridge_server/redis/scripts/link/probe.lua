#!lua
-- Do only what every script does: read the time, and publish.
--
-- KEYS  1 the node's witness, for the slot alone
-- ARGV  1 channel of our node   2 message
-- Returns the number of subscribers.

redis.call('TIME')
return redis.call('SPUBLISH', ARGV[1], ARGV[2])
