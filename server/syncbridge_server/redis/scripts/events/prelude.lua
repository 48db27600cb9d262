-- What a script begins with while somebody reads events: it puts them into the outbox of its slot.
-- docs/decisions/0012-events.md. Lines that begin with "--@ " are the scripts' own part in it.
--
-- e:T   STREAM, the outbox of a bucket: k kind, s session, u its owner, and the fields of the kind
-- ed:T  ZSET session -> version before the first change that was not told
-- ex:T  ZSET "session owner" -> ms at which it is to be looked at whether the session has expired
-- A refused write here must not make the change look failed, so all of them are protected calls.
-- A script gets the functions that it names, and those that they name.

local function put(tag, kind, ...)
  redis.pcall('XADD', 'e:' .. tag, 'MAXLEN', '~', 4096, '*', 'k', kind, ...)
end

-- Of the session whose meta key is KEYS[1].
local function told(kind, ...)
  put(string.sub(KEYS[1], 3, -40), kind, 's', string.sub(KEYS[1], -38, -3), ...)
end

local function owner_of()
  local found = redis.call('HMGET', KEYS[1], 'u', 'r')
  return found[1] or found[2] or ''
end

local function told_device(event, owner, device, online, ...)
  local kind = event == 'joined' and 'device.joined' or 'device.left'
  told(kind, 'u', owner, 'd', device, 'n', online, 'r', event, ...)
end

local function told_created(user, device, epoch, lineage, app, expires)
  local tag, sid = string.sub(KEYS[1], 3, -40), string.sub(KEYS[1], -38, -3)
  put(tag, 'session.created', 's', sid, 'u', user, 'v', 1, 'd', device, 'e', epoch, 'l', lineage,
      'a', app)
  redis.pcall('ZADD', 'ex:' .. tag, string.format('%.0f', expires), sid .. ' ' .. user)
end
