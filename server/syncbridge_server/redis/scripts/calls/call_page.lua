#!lua flags=allow-oom
-- The newest call sessions of one bucket after a position, from some of its indexes.
--
-- KEYS  1 x, 2..7 indexes, 8 due, 9 rel, 10 relof: as 2, 3..8, 9, 11 and 12 in call_create
-- ARGV  1 most entries of an index   2 created ms and 3 id of the position; "+inf" or "(ms" and ""
--       for the first page   4 created ms of the oldest   5.. numbers of the indexes
-- Returns {indexes that cannot be read, id, created ms, ...}, index by index. Within a millisecond,
-- ids go down as well. A damaged index does not affect the others.

local call, pcall, format = redis.call, redis.pcall, string.format
local clock = call('TIME')
local now = clock[1] .. format('%03d', math.floor(clock[2] / 1000))
local old = pcall('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now, 'LIMIT', 0, 256)
local most, found = tonumber(ARGV[1]), {old.err and 1 or 0}
for _, id in ipairs(old) do
  for i = 1, 8 do pcall('ZREM', KEYS[i], id) end
  for _, field in ipairs({'parent', 'channel'}) do
    local member = pcall('HGET', KEYS[10], field .. '\0' .. id)
    if type(member) == 'string' then
      pcall('ZREM', KEYS[9], member)
      pcall('HDEL', KEYS[10], field .. '\0' .. id)
    end
  end
end
for n = 5, #ARGV do
  local index, taken, from = KEYS[2 + ARGV[n]], 0, 0
  repeat
    local part = pcall('ZREVRANGEBYSCORE', index, ARGV[2], ARGV[4], 'WITHSCORES',
        'LIMIT', from, most)
    if part.err then found[1] = found[1] + 1 end
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
