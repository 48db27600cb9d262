#!lua
-- Put an event into an outbox, once, however many nodes have noticed the same.
--
-- KEYS  1 e:T, as in prelude.lua   2 eo:T:<what it is about>  STRING, where 1 of ARGV is not 0
-- ARGV  1 ms for which a repetition is known, or 0   2.. k, kind, and the other fields
-- Returns 1, or 0: it was there.

if ARGV[1] ~= '0' and not redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[1]) then return 0 end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', 4096, '*', unpack(ARGV, 2))
return 1
