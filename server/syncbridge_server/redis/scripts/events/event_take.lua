#!lua
-- The next events of some outboxes, after sessions that have changed were told there, one event
-- each.
--
-- KEYS  of each outbox: e:T, ed:T as in prelude.lua, et:T  ZSET, what a round took out of ed:T
-- ARGV  1 most entries of an outbox   2 most sessions of an outbox   3 most keys of an event
--       4 most bytes of its keys   5 most bytes of its values, 0 for none
--       then of each outbox: the entry after which its events begin   1: go on with a round,
--       2: begin one too, 0: neither   the entry up to which it may forget, but for that one, or ""
-- Returns of each outbox its error or {{entry, fields}..., sessions of the round that are left,
--         those of the next one, as far as is known, entries ever added, entries there, the first
--         entry}, with 0, 0, "" in the place of the last three when nothing is missing: the entry
--         after which it begins is there.
-- A round tells each session once, however often it changes meanwhile. The keys come from the
-- index of the session, as a difference for a client does; what is too much is left out, and `m`
-- says so, as where deleted keys are forgotten. Keys and values are "<size> <bytes>" each.

local call, match = redis.call, string.match
local most, most_sessions = tonumber(ARGV[1]), tonumber(ARGV[2])
local most_keys, most_bytes, most_values = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

-- The keys that have changed since a version, the oldest change first, and whether those are all.
local function keys_of(base, before, floor)
  local found = redis.pcall('ZRANGE', base .. 'k', '(' .. before, '+inf', 'BYSCORE',
      'LIMIT', 0, most_keys + 1)
  if found.err then return {}, false end
  local names, bytes = {}, 0
  for j = 1, #found do
    bytes = bytes + #found[j]
    if j > most_keys or bytes > most_bytes then return names, false end
    names[j] = found[j]
  end
  return names, floor <= tonumber(before)
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
    parts[j] = #value .. ' ' .. value
  end
  return table.concat(parts)
end

-- Whether the session could be read.
local function tell(outbox, base, sid, from)
  local meta = redis.pcall('HMGET', base .. 'm', 'v', 'e', 'l', 'u', 'w', 'z', 'f')
  if meta.err then return false end
  local before, version = tonumber(from), tonumber(meta[1] or 0)
  if version > before then
    local names, all = keys_of(base, from, tonumber(meta[7] or 0))
    local values = most_values > 0 and values_of(base, names) or ''
    local parts = {}
    for j = 1, #names do parts[j] = #names[j] .. ' ' .. names[j] end
    if meta[6] == '1' or meta[6] == '3' then all = false end  -- frozen: there are no keys
    local more = {}
    if not all then more[1], more[2] = 'm', '1' end
    if values ~= '' then more[#more + 1], more[#more + 2] = 'V', values end
    call('XADD', outbox, 'MAXLEN', '~', 4096, '*', 'k', 'session.updated', 's', sid,
        'u', meta[4] or '', 'f', from, 'v', meta[1], 'e', meta[2], 'l', meta[3],
        'd', meta[5] or '', 'K', table.concat(parts), unpack(more))
  end
  return true
end

-- Sessions of the round that are left, and those of the next one.
local function tell_all(outbox, changed, aside, begin)
  local due, going_on = nil, call('EXISTS', aside) == 1
  if going_on then
    due = call('ZRANGE', aside, 0, most_sessions - 1, 'WITHSCORES')
  elseif begin then
    due = call('ZRANGE', changed, 0, most_sessions, 'WITHSCORES')
    if #due > 2 * most_sessions then
      call('RENAME', changed, aside)
      due[#due], due[#due - 1], going_on = nil, nil, true
    end
  end
  if not due or #due == 0 then return 0, 0 end
  local base, sids, unread = 's:' .. match(outbox, '{[^}]*}') .. ':', {}, {}
  for j = 1, #due, 2 do
    sids[#sids + 1] = due[j]
    if not tell(outbox, base .. due[j] .. ':', due[j], due[j + 1]) then
      unread[#unread + 1] = due[j + 1]
      unread[#unread + 1] = due[j]
    end
  end
  -- What has changed since the round began was told as well.
  if going_on then call('ZREM', aside, unpack(sids)) end
  call('ZREM', changed, unpack(sids))
  -- A slot that is being moved cannot be read: the session is told in the next round.
  if #unread > 0 then call('ZADD', changed, 'LT', unpack(unread)) end
  if not going_on and #unread == 0 then return 0, 0 end
  return call('ZCARD', aside), call('ZCARD', changed)
end

local function take(outbox, changed, aside, after, round, forget)
  local left, waiting = 0, 0
  if round ~= '0' then left, waiting = tell_all(outbox, changed, aside, round == '2') end
  if forget ~= '' then call('XTRIM', outbox, 'MINID', forget) end
  local entries = call('XRANGE', outbox, after, '+', 'COUNT', most + 1)
  if #entries > 0 and entries[1][1] == after then
    table.remove(entries, 1)
    return {entries, left, waiting, 0, 0, ''}
  end
  entries[most + 1] = nil
  local added, length, first = 0, 0, ''
  if call('EXISTS', outbox) == 1 then
    local about = call('XINFO', 'STREAM', outbox)
    for j = 1, #about, 2 do
      if about[j] == 'entries-added' then added = about[j + 1] end
      if about[j] == 'length' then length = about[j + 1] end
      if about[j] == 'first-entry' and about[j + 1] then first = about[j + 1][1] end
    end
  end
  return {entries, left, waiting, added, length, first}
end

local answer = {}
for j = 1, #KEYS, 3 do
  local ok, found = pcall(take, KEYS[j], KEYS[j + 1], KEYS[j + 2],
      ARGV[j + 5], ARGV[j + 6], ARGV[j + 7])
  if not ok then found = type(found) == 'table' and found.err or tostring(found) end
  answer[#answer + 1] = found
end
return answer
