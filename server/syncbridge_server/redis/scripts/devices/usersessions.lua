#!lua flags=allow-oom
-- One page of a user's sessions, newest activity first. Entries older than a session's lifetime are
-- dropped.
--
-- KEYS  1 u:{user}  ZSET session -> last activity ms
-- ARGV  1 ttl ms   2 most entries   3 activity and 4 session of the last entry of the page before;
--       "+inf" and "" for the first page
-- Returns {more (0 or 1), session, activity, ...}. Sessions of one millisecond come in the reverse
-- order of their ids, as Redis has them.

local clock = redis.call('TIME')
local now = clock[1] .. string.format('%03d', math.floor(clock[2] / 1000))
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[1]))
local most, page, from = tonumber(ARGV[2]), {0}, 0
while true do
  local part = redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[3], '-inf', 'WITHSCORES',
      'LIMIT', from, most + 1)
  for j = 1, #part, 2 do
    if part[j + 1] ~= ARGV[3] or part[j] < ARGV[4] then
      if #page > 2 * most then
        page[1] = 1
        return page
      end
      page[#page + 1] = part[j]
      page[#page + 1] = tonumber(part[j + 1])
    end
  end
  if #part < 2 * (most + 1) then return page end
  from = from + most + 1
end
