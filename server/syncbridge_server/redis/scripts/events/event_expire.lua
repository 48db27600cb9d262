#!lua
-- Tell of sessions that have expired.
--
-- KEYS  1 e:T, 2 ex:T  as in prelude.lua
-- ARGV  1 most sessions   2 life of a session, ms
-- Returns ms until the next look, at most the life of a session. One that lives is looked at again
-- when its life ends.

local call, format = redis.call, string.format
local tag, clock = string.match(KEYS[1], '{[^}]*}'), call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
call('PERSIST', KEYS[2])
local due = call('ZRANGEBYSCORE', KEYS[2], '-inf', format('%.0f', now), 'LIMIT', 0, ARGV[1])
for j = 1, #due do
  local sid, owner = string.match(due[j], '^(%S+) (.*)$')
  local meta = redis.pcall('HMGET', 's:' .. tag .. ':' .. (sid or '') .. ':m', 'v', 't')
  if meta.err or meta[1] then
    -- Not before a second has passed: Redis's clock may be behind that of the expiry.
    local life = math.max(tonumber(not meta.err and meta[2] or 0) + ARGV[2], now + 1000)
    call('ZADD', KEYS[2], format('%.0f', life), due[j])
  else
    if sid then
      call('XADD', KEYS[1], 'MAXLEN', '~', 4096, '*', 'k', 'session.expired', 's', sid, 'u', owner)
    end
    call('ZREM', KEYS[2], due[j])
  end
end
if #due == tonumber(ARGV[1]) then return 0 end
local following = call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
return math.min(math.max(tonumber(following or now + ARGV[2]) - now, 0), tonumber(ARGV[2]))
