#!lua
-- Decide a waddle's channel key: the id itself for its owner, a qualified key for others.
--
-- KEYS  1 voice:{bucket}:c:<id>  the channel whose key is the id, as in voice_write
--       2 voice:{bucket}:o:<id>  STRING: the id's owner
--       3 voice:{bucket}:w:<id>  ZSET: waddles with a qualified key -> ms until which that is kept
-- ARGV  1 waddle   2 ttl ms   3 may the id be a key (0 or 1)   4 does the record decide (0 or 1)
-- Returns 1: the id, 0: the qualified key.
-- A record without a known owner was written by an earlier version: it belongs to the waddle in it.
-- Likewise if ARGV 4 says that the record was found to be another waddle's.

local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local owner = call('GET', KEYS[2])
local apart = call('ZSCORE', KEYS[3], ARGV[1])
if not apart and ARGV[3] == '1' then
  if not owner or ARGV[4] == '1' then
    local stored = call('HGET', KEYS[1], 'd')
    local read, record = pcall(cjson.decode, stored or '')
    local waddle = read and type(record) == 'table' and record.waddle_id
    if type(waddle) == 'string' and waddle ~= '' then
      owner = waddle
      call('SET', KEYS[2], owner, 'PX', ARGV[2])
    end
  end
  if not owner or owner == ARGV[1] then
    call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
    return 1
  end
end
call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. string.format('%.0f', now))
call('ZADD', KEYS[3], string.format('%.0f', now + ARGV[2]), ARGV[1])
call('PEXPIRE', KEYS[3], ARGV[2])
if owner then call('PEXPIRE', KEYS[2], ARGV[2]) end
return 0
