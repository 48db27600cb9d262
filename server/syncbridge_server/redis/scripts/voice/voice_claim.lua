#!lua flags=allow-oom
-- Claim due voice channels of one bucket.
--
-- KEYS  1 due, 2 live, 3.. the channels: as in voice_write
-- ARGV  1 now, ms of the caller's clock   2 when they are due again, ms   3 ttl ms
--       4.. ids, one for each channel
-- Returns {id, ms at which it was due, ...}: those that no other node has claimed meanwhile. A
-- channel with pending work does not expire before that is done.

local call, format = redis.call, string.format
local clock = call('TIME')
local forget = clock[1] .. format('%03d', math.floor(clock[2] / 1000))
forget = format('%.0f', forget + ARGV[3])
call('ZCARD', KEYS[2])
local claimed = {}
for i = 4, #ARGV do
  local id, channel = ARGV[i], KEYS[i - 1]
  local due = call('ZSCORE', KEYS[1], id)
  if due and tonumber(due) <= tonumber(ARGV[1]) then
    if call('PEXPIRE', channel, ARGV[3]) == 1 then
      call('ZADD', KEYS[1], ARGV[2], id)
      call('ZADD', KEYS[2], 'XX', forget, id)
      claimed[#claimed + 1] = id
      claimed[#claimed + 1] = due
    else
      for j = 1, 2 do call('ZREM', KEYS[j], id) end
    end
  end
end
return claimed
