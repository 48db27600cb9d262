#!lua
-- Requeue a dead letter, as if it had just arrived.
--
-- KEYS  1 w, 2 told: 1 and 3 of inbox_put   3 dead: as in inbox_bury
-- ARGV  1 entry   2 most that wait   3 channel of all nodes   4 what they are told
--       5 ms after which they are told again
-- Returns 1, 0 (there is no such letter), -1 (too many wait).

local call = redis.call
local waiting = call('XLEN', KEYS[1])
local told = call('GET', KEYS[2])
local letter = call('XRANGE', KEYS[3], ARGV[1], ARGV[1])[1]
if not letter then return 0 end
if waiting >= tonumber(ARGV[2]) then return -1 end
local fields = {}
for i = 1, #letter[2], 2 do
  if letter[2][i] ~= 'r' then
    fields[#fields + 1] = letter[2][i]
    fields[#fields + 1] = letter[2][i + 1]
  end
end
call('XADD', KEYS[1], '*', unpack(fields))
call('XDEL', KEYS[3], ARGV[1])
if not told then
  call('SET', KEYS[2], '1', 'PX', ARGV[5])
  redis.pcall('SPUBLISH', ARGV[3], ARGV[4])
end
return 1
