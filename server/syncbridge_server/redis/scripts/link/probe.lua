#!lua
-- Does what scripts do, and nothing else: ask for the time, and publish.
--
-- KEYS  1 the node's witness, for the slot alone
-- ARGV  1 channel of our node   2 message
-- Returns how many listen there.

redis.call('TIME')
return redis.call('SPUBLISH', ARGV[1], ARGV[2])
