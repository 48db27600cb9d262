#!lua flags=allow-oom
-- Make a webhook that cannot be processed a dead letter; the oldest ones are dropped.
--
-- KEYS  1 w, as in inbox_put   2 inbox:{inbox}:dead  STREAM of dead letters: the fields of w, r why
-- ARGV  1 group   2 entry   3 why   4 most dead letters
-- Returns 1, or 0: it no longer waits.

local call = redis.call
call('XLEN', KEYS[2])  -- for its type: nothing may fail after the first write
local entry = call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if not entry then return 0 end
local fields = {'r', ARGV[3]}
for i = 1, #entry[2], 2 do
  if entry[2][i] ~= 'r' then
    fields[#fields + 1] = entry[2][i]
    fields[#fields + 1] = entry[2][i + 1]
  end
end
call('XADD', KEYS[2], 'MAXLEN', ARGV[4], '*', unpack(fields))
--@ put('{inbox}', 'dead_letter.kept', 'r', ARGV[3])
call('XACK', KEYS[1], ARGV[1], ARGV[2])
call('XDEL', KEYS[1], ARGV[2])
return 1
