#!lua flags=allow-oom
-- The newest call sessions of one bucket after a position, from some of its indexes.
--
-- KEYS  1 x, 2..7 indexes: as 2 and 3..8 in call_create
-- ARGV  1 most entries of an index   2 created ms and 3 id of the position; "+inf" and "" for the
--       first page   4.. numbers of the indexes
-- Returns {id, created ms, ...}, index by index. Within a millisecond, ids go down as well.

local call, format = redis.call, string.format
local clock = call('TIME')
local now = clock[1] .. format('%03d', math.floor(clock[2] / 1000))
for _, id in ipairs(call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now, 'LIMIT', 0, 256)) do
  for i = 1, 7 do call('ZREM', KEYS[i], id) end
end
local most, found = tonumber(ARGV[1]), {}
for n = 4, #ARGV do
  local index, taken, from = KEYS[2 + ARGV[n]], 0, 0
  repeat
    local part = call('ZREVRANGEBYSCORE', index, ARGV[2], '-inf', 'WITHSCORES',
        'LIMIT', from, most)
    for j = 1, #part, 2 do
      if taken < most and (part[j + 1] ~= ARGV[2] or part[j] < ARGV[3]) then
        taken = taken + 1
        found[#found + 1] = part[j]
        found[#found + 1] = tonumber(part[j + 1])
      end
    end
    from = from + most
  until taken == most or #part < 2 * most
end
return found
