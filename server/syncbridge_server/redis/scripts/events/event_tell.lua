#!lua
-- Tell of sessions that have changed: one event each, from the version that was told last.
--
-- KEYS  1 e:T, 2 ed:T  as in prelude.lua   3 et:T  ZSET, ed:T as this round found it
-- ARGV  1 most sessions   2 most keys of an event   3 most bytes of its keys
--       4 most bytes of its values, 0 for none   5 1: begin a round
-- Returns how many sessions of the round are left.
-- A round takes the sessions that have changed aside: each is told once in it, however often it
-- changes meanwhile. The keys come from the journal, which knows the last 256 versions; what is not
-- in it, or is too much, is left out, and `m` says so. Keys and values are "<size> <bytes>" each.

local call, sub, match = redis.call, string.sub, string.match
if ARGV[5] == '1' and call('EXISTS', KEYS[3]) == 0 and call('EXISTS', KEYS[2]) == 1 then
  call('RENAME', KEYS[2], KEYS[3])
end
local tag = match(KEYS[1], '{[^}]*}')
local due = call('ZRANGE', KEYS[3], 0, ARGV[1] - 1, 'WITHSCORES')
local most, most_bytes, most_values = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local function packed(text) return #text .. ' ' .. text end

-- The changed keys, oldest first, and whether those are all.
local function keys_of(base, before, version)
  local names, known, bytes = {}, {}, 0
  local journal = redis.pcall('LRANGE', base .. 'j', before - version, -1)
  if journal.err then return names, false end
  local all = #journal == version - before
  for j = 1, #journal do
    local rest = sub(journal[j], 14)
    if rest == '*' then return names, false end
    while rest ~= '' do
      local name_size, size, at = match(rest, '^(%d+) (%d+) ()')
      if not at then return names, false end
      local name = sub(rest, at, at + name_size - 1)
      rest = sub(rest, at + name_size + 1 + size + 1)
      if not known[name] then
        if #names >= most or bytes + #name > most_bytes then return names, false end
        known[name], bytes = true, bytes + #name
        names[#names + 1] = name
      end
    end
  end
  return names, all
end

-- Values of keys as the session has them now, or nothing when they are too much.
local function values_of(base, names)
  if #names == 0 then return '' end
  local values = redis.pcall('HMGET', base .. 'd', unpack(names))
  if values.err then return '' end
  local parts, bytes = {}, 0
  for j = 1, #values do
    local value = values[j] or ''
    bytes = bytes + #value
    if bytes > most_values then return '' end
    parts[j] = packed(value)
  end
  return table.concat(parts)
end

for j = 1, #due, 2 do
  local sid, before = due[j], tonumber(due[j + 1])
  local base = 's:' .. tag .. ':' .. sid .. ':'
  local meta = redis.pcall('HMGET', base .. 'm', 'v', 'e', 'l', 'u', 'w', 'z')
  local version = not meta.err and tonumber(meta[1] or 0) or 0
  if version > before then
    local names, all = keys_of(base, before, version)
    local frozen = meta[6] == '1' or meta[6] == '3'
    local values = most_values > 0 and not frozen and values_of(base, names) or ''
    local parts = {}
    for k = 1, #names do parts[k] = packed(names[k]) end
    call('XADD', KEYS[1], 'MAXLEN', '~', 4096, '*', 'k', 'session.updated', 's', sid,
        'u', meta[4] or '', 'f', due[j + 1], 'v', meta[1], 'e', meta[2], 'l', meta[3],
        'd', meta[5] or '', 'c', table.concat(parts), 'm', all and '' or '1', 'V', values)
  end
  -- A slot that is being moved cannot be read: the session is told in the next round.
  if meta.err then
    call('ZADD', KEYS[2], 'NX', due[j + 1], sid)
  end
  call('ZREM', KEYS[3], sid)
end
return call('ZCARD', KEYS[3])
