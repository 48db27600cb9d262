-- The current refresh token of a login ("family"), replaced only by whoever holds it.
--
-- KEYS[1]  the family: a string, the jti of its current refresh token; "" when it was revoked
-- ARGV[1]  "open" a new family, or "rotate" it
-- ARGV[2]  jti of the token presented ("" for open)
-- ARGV[3]  jti of its successor
-- ARGV[4]  life of the record in ms
-- Returns  0 family unknown, 1 done, 2 the token was used before: the family is now revoked, 3 the
-- family was revoked earlier
if ARGV[1] == 'open' then
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
  return 1
end
local current = redis.call('GET', KEYS[1])
if not current then
  return 0
elseif current == '' then
  return 3
elseif current ~= ARGV[2] then
  redis.call('SET', KEYS[1], '', 'PX', ARGV[4])
  return 2
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return 1
