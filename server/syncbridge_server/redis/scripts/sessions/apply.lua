#!lua
-- One write of a session: deduplicate, find conflicts, write, publish. Atomic, one round trip.
--
-- KEYS  1 m  meta HASH        2 d  data HASH             3 k  ZSET key -> version
--       4 i  ZSET mutation    5 n  ZSET node -> lease    6 o  HASH device -> "conn node"
--       7 j  LIST journal: "version key-length key imprint" of each change, oldest first
-- ARGV  1 number of set pairs      2 number of deletes     3 mode (ports.Mode)
--       4 base version, -1 none    5 flags: 1 owner check, 2 create, 4 replace,
--                                     8 * operation (ports.Operation)
--       6 user   7 device   8 mutation id or ""   9 epoch for a session made here
--      10 app version or ""  11 our node  12 ttl ms  13 max state bytes  14 max keys
--      15 mutation ids kept  16 tombstones kept
--      17 fence of the writer's connection, 0 for none; meta field "x<device>" is the least one
--         with which that device may write
--      18.. key, value, key, value ..., deleted keys
--           An operation has one key, its operand, and then: expected value or "", max value bytes
-- Returns {FROZEN} when it needs a state that is packed away (see thaw.lua), else
--         {status, version, previous version, epoch, created, created ms, updated ms, expires ms,
--          whole, sets, deletes, conflicts, result of an operation}. whole = 1: all that was
--          asked for was applied, and sets and deletes are left empty instead of being sent back.
--
-- A Lua error does not undo the writes before it. So every key is read (and its type thereby
-- checked) before the first write, the index `k`, which may not have been read, is written first,
-- and PUBLISH comes last. Values are opaque: nothing here parses JSON.

local call, format = redis.call, string.format
local OK, DUPLICATE, CONFLICT, AHEAD, NOT_FOUND, FORBIDDEN, TOO_LARGE, TOO_MANY_KEYS, FENCED,
    FROZEN = 0, 1, 2, 3, 4, 5, 6, 7, 9, 10
local YIELD, OVERWRITE, WHOLE = 2, 1, 3
local FIRST, HOUR = 18, 3600000
-- The journal keeps an imprint of what a key was before each change, for three-way merges: "=" and
-- the value where that is short, else 16 digits of its SHA-1; "" for no value, "?" for one that is
-- too long to be hashed here. Twins: syncbridge.kernels.imprint.
local JOURNAL, JOURNAL_SLACK, SHORT_BYTES, HASHED_BYTES = 128, 32, 24, 2048

-- The functions capture nothing: an upvalue costs an allocation in each run.
local function gather(command, key, list)
  local size = #list
  if size <= 3000 then return redis.call(command, key, unpack(list)) end
  local all = {}
  for from = 1, size, 3000 do
    local part = redis.call(command, key, unpack(list, from, math.min(from + 2999, size)))
    for j = 1, #part do all[from + j - 1] = part[j] end
  end
  return all
end
local function write(command, key, list)
  local size = #list
  for from = 1, size, 3000 do
    redis.call(command, key, unpack(list, from, math.min(from + 2999, size)))
  end
end
local function expire_at(at, last)
  local expiry = string.format('%.0f', at)
  for j = 1, last do redis.call('PEXPIREAT', KEYS[j], expiry) end
  redis.call('PEXPIREAT', KEYS[7], expiry)
end
local function trim()
  redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -1 - tonumber(ARGV[15]))
end
-- An answer that changed nothing.
local function answer(status, version, epoch, times, conflicts)
  local updated = redis.call('HGET', KEYS[1], 'm') or '0'
  return {status, version, version, epoch, 0, times[1], tonumber(updated), times[2],
      0, {}, {}, conflicts or {}}
end

local nsets, ndels = tonumber(ARGV[1]), tonumber(ARGV[2])
local mode, base, flags = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local owner_check, create, replace = flags % 2 == 1, flags % 4 > 1, flags % 8 > 3
local operation = math.floor(flags / 8)
local user, device, mutation = ARGV[6], ARGV[7], ARGV[8]
local ttl = tonumber(ARGV[12])

local clock = call('TIME')
local now_text = clock[1] .. format('%03d', math.floor(clock[2] / 1000))
local now = tonumber(now_text)
local meta = call('HMGET', KEYS[1], 'v', 'n', 'e', 'u', 'c', 't', 'x' .. device, 'z')
local exists = meta[1] ~= false
local version = tonumber(meta[1] or 0)
local epoch, bytes = meta[3] or '', tonumber(meta[2] or 0)
local created_at, refreshed = tonumber(meta[5] or now_text), tonumber(meta[6] or now_text)

if exists then
  if owner_check and meta[4] ~= user then return {FORBIDDEN} end
else
  if not create then return {NOT_FOUND} end
  -- Somebody waits here for a session of their own: they must not receive another user's.
  local joined = call('HGET', KEYS[6], '')
  if joined and joined ~= user then return {FORBIDDEN} end
end
local member
if mutation ~= '' then
  member = device .. ':' .. mutation
  local done = exists and call('ZSCORE', KEYS[4], member)
  if done then
    return answer(DUPLICATE, tonumber(done), epoch, {created_at, refreshed + ttl})
  end
end
if meta[7] and ARGV[17] ~= '0' and tonumber(ARGV[17]) < tonumber(meta[7]) then
  return answer(FENCED, version, epoch, {created_at, refreshed + ttl})
end
if base > version then return answer(AHEAD, version, epoch, {created_at, refreshed + ttl}) end
if meta[8] then return {FROZEN} end

-- names[1..nsets] are set to values[j], the rest is deleted.
local names, values = {}, {}
local at = FIRST
for j = 1, nsets do
  names[j], values[j] = ARGV[at], ARGV[at + 1]
  at = at + 2
end
if replace then
  local kept = {}
  for j = 1, nsets do kept[names[j]] = true end
  local old = exists and call('HKEYS', KEYS[2]) or {}
  for j = 1, #old do
    if not kept[old[j]] then names[#names + 1] = old[j] end
  end
else
  for j = 1, ndels do names[nsets + j] = ARGV[at + j - 1] end
end
local total = #names

local old = {}
if exists and total > 0 then old = gather('HMGET', KEYS[2], names) end

-- An operation turns its operand into the value to be set; all reads, no writes. Its functions are
-- made in here, so that a plain write does not pay for them.
local result
if operation > 0 then
  local INCR, APPEND, MAX, SETNX, CAS = 1, 2, 3, 5, 6
  local PRECONDITION, TYPE_MISMATCH, NOT_AN_INTEGER, OUT_OF_RANGE = 16, 17, 18, 19
  local before, operand = old[1], values[1]
  -- With the value that stands in the way, or of other refusals its beginning, for its type.
  local function refused(status)
    local shown = before or ''
    if status ~= PRECONDITION then shown = string.sub(shown, 1, 64) end
    return answer(status, version, epoch, {created_at, refreshed + ttl}, {names[1], shown})
  end
  result = operand
  if operation == SETNX then
    if before then return refused(PRECONDITION) end
  elseif operation == CAS then
    if (before or '') ~= ARGV[at] then return refused(PRECONDITION) end
  elseif operation == APPEND then
    if not before or before == '[]' then
      result = '[' .. operand .. ']'
    elseif string.sub(before, 1, 1) == '[' then
      result = string.sub(before, 1, -2) .. ',' .. operand .. ']'
    else
      return refused(TYPE_MISMATCH)
    end
    if #result > tonumber(ARGV[at + 1]) then return refused(TOO_LARGE) end
  elseif before and not string.find(before, '^[-0-9]') then
    return refused(TYPE_MISMATCH)
  elseif before and operation == INCR then
    local function in_int64(text)
      local minus, digits = string.match(text, '^(-?)(%d+)$')
      local most = minus == '-' and '9223372036854775808' or '9223372036854775807'
      return #digits < 19 or (#digits == 19 and digits <= most)
    end
    if not string.find(before, '^-?%d+$') then return refused(NOT_AN_INTEGER) end
    if not in_int64(before) then return refused(OUT_OF_RANGE) end
    if #before < 16 and #operand < 16 then
      result = format('%.0f', tonumber(before) + tonumber(operand))
    else
      -- A double holds 15 digits, so the two halves of each number are added on their own.
      local HALF, high, low = 10000000000, 0, 0
      for _, text in ipairs({before, operand}) do
        local minus, digits = string.match(text, '^(-?)(%d+)$')
        local sign = minus == '-' and -1 or 1
        high = high + sign * (tonumber(string.sub(digits, 1, -11)) or 0)
        low = low + sign * tonumber(string.sub(digits, -10))
      end
      if low >= HALF then high, low = high + 1, low - HALF end
      if low <= -HALF then high, low = high - 1, low + HALF end
      if high > 0 and low < 0 then high, low = high - 1, low + HALF end
      if high < 0 and low > 0 then high, low = high + 1, low - HALF end
      local minus = (high < 0 or low < 0) and '-' or ''
      high, low = math.abs(high), math.abs(low)
      result = minus .. (high == 0 and format('%.0f', low) or format('%.0f%010.0f', high, low))
    end
    if not in_int64(result) then return refused(OUT_OF_RANGE) end
  elseif before then
    -- MAX and MIN. A number as sign, place of its first digit, and digits without the zeros around
    -- them: exact at any size.
    local function parts(text)
      local minus, whole, fraction, power =
          string.match(text, '^(-?)(%d+)%.?(%d*)[eE]?([-+]?%d*)$')
      local digits = whole .. fraction
      local zeros = #string.match(digits, '^0*')
      local place = #whole - zeros + (tonumber(power) or 0)
      digits = string.match(string.sub(digits, zeros + 1), '^(.-)0*$')
      if digits == '' then return 0, 0, '' end
      return minus == '-' and -1 or 1, place, digits
    end
    local function greater(a, b)
      local sign, place, digits = parts(a)
      local other_sign, other_place, other_digits = parts(b)
      if sign ~= other_sign then return sign > other_sign end
      if place ~= other_place then return (place > other_place) == (sign > 0) end
      return digits ~= other_digits and (digits > other_digits) == (sign > 0)
    end
    local high, low = operand, before
    if operation ~= MAX then high, low = before, operand end
    if not greater(high, low) then result = before end
  end
  values[1] = result
end
local changed, floor
if base >= 0 and base < version and mode ~= OVERWRITE and total > 0 then
  changed = gather('ZMSCORE', KEYS[3], names)
  floor = tonumber(call('HGET', KEYS[1], 'f'))
end
local clash, conflicts = false, {}
local sets, deletes, index, befores = {}, {}, {}, {}
local more_keys, nbytes, whole = 0, bytes, 1
local next_text = format('%.0f', version + 1)
for j = 1, total do
  local name, before, conflict = names[j], old[j], false
  if changed then
    local since = changed[j]
    if since then conflict = tonumber(since) > base else conflict = base < floor end
    if conflict then
      clash = true
      conflicts[#conflicts + 1] = name
      conflicts[#conflicts + 1] = before or ''
    end
  end
  if conflict and mode == YIELD then
    whole = 0
  elseif j <= nsets then
    local value = values[j]
    if before ~= value then
      sets[#sets + 1] = name
      sets[#sets + 1] = value
      index[#index + 1] = next_text
      index[#index + 1] = name
      befores[#befores + 1] = before or ''
      if before then
        nbytes = nbytes + #value - #before
      else
        nbytes = nbytes + #name + #value
        more_keys = more_keys + 1
      end
    else
      whole = 0
    end
  elseif before then
    deletes[#deletes + 1] = name
    index[#index + 1] = next_text
    index[#index + 1] = name
    befores[#befores + 1] = before
    nbytes = nbytes - #name - #before
    more_keys = more_keys - 1
  else
    whole = 0
  end
end
if replace or result then whole = 0 end
if mode == WHOLE and base >= 0 and base < version then clash = true end
if clash and mode ~= YIELD then
  return answer(CONFLICT, version, epoch, {created_at, refreshed + ttl}, conflicts)
end
if nbytes > tonumber(ARGV[13]) and nbytes > bytes then
  return answer(TOO_LARGE, version, epoch, {created_at, refreshed + ttl})
end
local count
if more_keys > 0 then
  count = exists and call('HLEN', KEYS[2]) or 0
  if count + more_keys > tonumber(ARGV[14]) then
    return answer(TOO_MANY_KEYS, version, epoch, {created_at, refreshed + ttl})
  end
end
local nodes = call('ZRANGEBYSCORE', KEYS[5], now_text, '+inf')

if exists and #index == 0 then
  if member then
    call('ZADD', KEYS[4], meta[1], member)
    trim()
  end
  if now - refreshed > HOUR then
    refreshed = now
    call('HSET', KEYS[1], 't', now_text)
    expire_at(now + ttl, 4)
  end
  local unchanged = answer(OK, version, epoch, {created_at, refreshed + ttl}, conflicts)
  unchanged[13] = result
  return unchanged
end

-- From here on everything is written.
if not exists then
  call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[7])
  epoch = ARGV[9]
end
write('ZADD', KEYS[3], index)
write('HSET', KEYS[2], sets)
if #deletes > 0 then write('HDEL', KEYS[2], deletes) end
if exists then
  call('HSET', KEYS[1], 'v', next_text, 'n', format('%.0f', nbytes), 'm', now_text, 'w', device)
else
  call('HSET', KEYS[1], 'v', next_text, 'n', format('%.0f', nbytes), 'm', now_text, 'w', device,
      'e', epoch, 'f', '0', 'u', user, 'c', now_text, 't', now_text)
  -- The mutation index always exists, so that it has the expiry of the others.
  if not member then call('ZADD', KEYS[4], 0, '') end
end
if ARGV[10] ~= '' then call('HSET', KEYS[1], 'a', ARGV[10]) end
if member then
  call('ZADD', KEYS[4], next_text, member)
  if (version + 1) % 32 == 0 then trim() end
end

if #deletes > 0 then
  local live, limit = call('HLEN', KEYS[2]), tonumber(ARGV[16])
  local spare = call('ZCARD', KEYS[3]) - live
  if spare > limit then
    -- Drop the oldest half of the tombstones, so that this loop runs once in many deletions.
    local there, names_left = {}, call('HKEYS', KEYS[2])
    for j = 1, #names_left do there[names_left[j]] = true end
    local drop, dropped, from = spare - math.floor(limit / 2), {}, 0
    while #dropped < drop do
      local part = call('ZRANGE', KEYS[3], from, from + 2999, 'WITHSCORES')
      if #part == 0 then break end
      for j = 1, #part, 2 do
        if #dropped < drop and not there[part[j]] then
          dropped[#dropped + 1] = part[j]
          floor = tonumber(part[j + 1])
        end
      end
      from = from + 3000
    end
    write('ZREM', KEYS[3], dropped)
    call('HSET', KEYS[1], 'f', format('%.0f', floor))
  end
end

if #befores > 0 then
  local lines, skipped = {}, math.max(0, #befores - JOURNAL)
  for j = skipped + 1, #befores do
    local name, imprint = index[2 * j], befores[j]
    local size = #imprint
    if size > HASHED_BYTES then
      imprint = '?'
    elseif size > SHORT_BYTES then
      imprint = string.sub(redis.sha1hex(imprint), 1, 16)
    elseif size > 0 then
      imprint = '=' .. imprint
    end
    lines[j - skipped] = next_text .. ' ' .. #name .. ' ' .. name .. ' ' .. imprint
  end
  -- Never read before: a key of another type is dropped, it is only a memory.
  local length = redis.pcall('RPUSH', KEYS[7], unpack(lines))
  if type(length) ~= 'number' then
    call('DEL', KEYS[7])
  elseif length == #lines then
    call('PEXPIREAT', KEYS[7], format('%.0f', refreshed + ttl))
  elseif length > JOURNAL + JOURNAL_SLACK then
    call('LTRIM', KEYS[7], -JOURNAL, -1)
  end
end

if not exists then
  expire_at(ttl + now, 4)
elseif now - refreshed > HOUR then
  refreshed = now
  call('HSET', KEYS[1], 't', now_text)
  expire_at(now + ttl, 4)
elseif count == 0 then
  -- The data hash was empty, hence absent, and has just been made anew.
  expire_at(refreshed + ttl, 3)
end

-- What other nodes are told: a line of numbers and lengths, then the texts one after another.
-- C<sid> <version> <previous> <epoch> <#device> <#mutation> <number of set texts> <lengths...>\n
local payload
for j = 1, #nodes do
  if nodes[j] ~= ARGV[11] then
    if not payload then
      local texts, sizes = {}, {}
      for k = 1, #sets do texts[k] = sets[k] end
      for k = 1, #deletes do texts[#sets + k] = deletes[k] end
      for k = 1, #texts do sizes[k] = #texts[k] end
      payload = 'C' .. string.sub(KEYS[1], 4, -4) .. ' ' .. next_text .. ' ' .. (meta[1] or '0')
          .. ' ' .. epoch .. ' ' .. #device .. ' ' .. #mutation .. ' ' .. #sets .. ' '
          .. table.concat(sizes, ' ') .. '\n' .. device .. mutation .. table.concat(texts)
    end
    call('PUBLISH', 'n:' .. nodes[j], payload)
  end
end

if whole == 1 then sets, deletes = {}, {} end
return {OK, version + 1, version, epoch, exists and 0 or 1, created_at, now, refreshed + ttl,
    whole, sets, deletes, conflicts, result}
