#!lua
-- Write to a session: check its number, find conflicts, write, publish. Atomic, one round trip.
-- Format 2; docs/decisions/0009-the-layout-of-redis.md says what each key and field is.
--
-- KEYS  1 m  meta HASH; with old data last the old meta key. The other names are made from the
--         first: d data HASH, k ZSET key -> version, j journal LIST, c HASH key -> imprint, o
--         devices HASH, w HASH key -> writer, f:<device> ids. In a cluster the caller declares all.
-- ARGV  1 flags: 1 owner check, 2 guarded, 4 trace, 8 old data, 16 create, 32 replace,
--          64 spellings, 128 free id, 256 base, 512 deletes, 1024 * mode (Mode),
--          4096 * operation (Operation)
--       2 user   3 device   4 our node   5 fence, 0 none   6 stream or ""   7 seq, 0 none
--       8 nonce  9 correlation id or ""  10 number of set pairs   11.. key, value, key, value ...
--         then, with these flags only, in this order:
--         512 number of deletes, keys   256 base version, its lineage or ""   32 app version or ""
--         2 number of keys that must be there, keys
--         CAS: expected text, its spelling   64 one spelling a pair   4 trace id
-- Returns {status, version, lineage, epoch, lineage before, last seq, last change ms,
--          created, created ms, expires ms, whole, sets, deletes, conflicts, result, its spelling}.
-- Lineage before: "" nothing changed, "-" there was none. It ends early where the rest is 0 or
-- empty; after a plain write, which is whole, with the 7th.
--
-- A Lua error does not undo the writes before it. So every key that is written was read (and its
-- type thereby checked) before the first write, but for k and j: k is written first, and j is a
-- memory, made anew when it is of another type. SPUBLISH comes last and may fail: other nodes then
-- find the commit by comparison. Values are opaque: nothing here parses JSON.
--
-- Most writes set one key and nothing else. `one` marks them: they make no lists.

local TTL, MOST_BYTES, MOST_KEYS, MOST_VALUE, TOMBSTONES, MOST_STREAMS =
    604800000, 1048576, 2000, 262144, 256, 512
local OK, DUPLICATE, CONFLICT, AHEAD, NOT_FOUND, FORBIDDEN, TOO_LARGE, TOO_MANY_KEYS, FENCED,
    FROZEN, BASE_LOST, GAP, UNKNOWN_STREAM, OLD = 0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14
local OVERWRITE, YIELD, WHOLE = 1, 2, 3
local FIRST, HOUR, TOKEN, SHORT_BYTES, HASHED_BYTES = 11, 3600000, 12, 24, 2048
local JOURNAL, SLACK, FEW_KEYS = 256, 32, 4
-- An id's score is the second in which it was used, then six digits of the version that it made.
local VERSIONS = 1000000
local call, format, sub, find, match = redis.call, string.format, string.sub, string.find,
    string.match

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
local function expire(at, letters)
  local name, expiry = string.sub(KEYS[1], 1, -2), string.format('%.0f', at)
  for letter in string.gmatch(letters, '.') do redis.call('PEXPIREAT', name .. letter, expiry) end
end
-- Twins: syncbridge.kernels.imprint. `entry` is what stands in c beside the text.
local function imprint(text, entry)
  if entry and entry ~= '' then return entry end
  local size = #text
  if size <= SHORT_BYTES then return '=' .. text end
  if size <= HASHED_BYTES then return string.sub(redis.sha1hex(text), 1, 16) end
  return '?'
end

-- The entry of a commit of many keys. Those before it keep 16 KiB of keys and
-- imprints in all: what is older becomes the token and "*".
local function long_entry(entry, index, befores)
  local most, parts, key = 128, {entry}, string.sub(KEYS[1], 1, -2) .. 'j'
  if #befores > most then return entry .. ' *' end
  for j = 1, #befores do
    local name, was = index[2 * j], befores[j]
    parts[#parts + 1] = #name .. ' ' .. #was .. ' ' .. name .. ' ' .. was
  end
  local there = redis.pcall('LRANGE', key, 0, -1)
  local bytes = 0
  for j = there.err and 0 or #there, 1, -1 do
    bytes = bytes + #there[j] - 12
    if bytes > 16384 and #there[j] > 14 then
      redis.call('LSET', key, j - 1, string.sub(there[j], 1, 12) .. ' *')
    end
  end
  return table.concat(parts, ' ')
end

local flags, nsets, seq = tonumber(ARGV[1]), tonumber(ARGV[10]), tonumber(ARGV[7])
local device, node, own = ARGV[3], ARGV[4], sub(KEYS[1], 1, -2)
local free_id = flags % 256 > 127 and own .. 'f:' .. device

local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local meta = call('HMGET', KEYS[1], 'v', 'l', 'n', 'i' .. device, 's', 'e', 'u', 't', 'z',
    'x' .. device)
local exists = meta[1] ~= false
local version, lineage, epoch = tonumber(meta[1] or 0), meta[2] or '', meta[6] or ''
local bytes, refreshed = tonumber(meta[3] or 0), tonumber(meta[8] or now)

if exists then
  if flags % 2 == 1 and meta[7] ~= ARGV[2] then return {FORBIDDEN} end
else
  if flags % 16 > 7 and call('EXISTS', KEYS[#KEYS]) == 1 then return {OLD} end
  if flags % 32 < 16 then return {NOT_FOUND} end
  -- A device waits here for its user's new session: it must not receive another user's.
  local waits = call('HGET', KEYS[1], 'r')
  if waits and waits ~= ARGV[2] then return {FORBIDDEN} end
end
-- A device that has handed the session over may not write; its earlier writes are still answered.
local fenced = meta[10] and ARGV[5] ~= '0' and tonumber(ARGV[5]) < tonumber(meta[10])

-- The number of the update: `last` of its stream, and what the record becomes, but for the version.
local last, behind, streams = 0, '', meta[4]
if seq > 0 then
  local stream = ARGV[6]
  local at = 0
  if streams and sub(streams, 1, 11) == stream then
    at = find(streams, ';', 13, true)
    if at then behind = sub(streams, at) end
    at = 1
  elseif streams then
    local first, second, gone = match(streams, '^([^;]*);?([^;]*);?(.*)$')
    if sub(second, 1, 11) == stream then
      behind = ';' .. first .. (gone == '' and '' or ';' .. gone)
      at = #first + 2
    else
      if find(gone, stream, 1, true) and not fenced then
        return {UNKNOWN_STREAM, version, lineage, epoch}
      end
      behind = ';' .. first
      -- The eight evicted last are remembered, each 11 characters and a comma.
      if second ~= '' then
        gone = sub(second, 1, 11) .. (gone == '' and '' or ',' .. gone)
        behind = behind .. ';' .. sub(gone, 1, 8 * 12 - 1)
      end
    end
  end
  if at > 0 then
    local taken, taken_at = match(streams, '^(%d+) (%d+)', at + 12)
    last = tonumber(taken)
    if seq <= last then
      if seq < last then return {DUPLICATE, version, lineage, epoch, '', last} end
      return {DUPLICATE, tonumber(taken_at), '', epoch, '', last}
    end
    if seq > last + 1 and not fenced then return {GAP, version, lineage, epoch, '', last} end
  elseif seq > 1 and not fenced then
    return {UNKNOWN_STREAM, version, lineage, epoch}
  end
elseif free_id then
  local score = call('ZSCORE', free_id, ARGV[9])
  if score and exists then
    local first = version - (version - tonumber(score)) % VERSIONS
    return {DUPLICATE, first, '', epoch}
  end
end
if fenced then return {FENCED, version, lineage, epoch} end

-- What follows the pairs. A place that cannot be verified is judged before anything is read.
local at, base, deleted_from, ndels = FIRST + 2 * nsets, -1, 0, 0
if flags % 1024 > 511 then
  deleted_from, ndels = at + 1, tonumber(ARGV[at])
  at = at + 1 + ndels
end
if flags % 512 > 255 then
  base = tonumber(ARGV[at])
  if ARGV[at + 1] == '' then
    if base > version then return {AHEAD, version, lineage, epoch, '', last} end
  else
    local token
    if base == version then
      token = lineage
    elseif base < version and base > version - JOURNAL then
      token = sub(call('LINDEX', own .. 'j', base - version - 1) or '', 1, TOKEN)
    end
    if base == 0 or token ~= ARGV[at + 1] then
      return {BASE_LOST, version, lineage, epoch, '', last}
    end
  end
  at = at + 2
end
local spelled = meta[9] == '2'
if meta[9] and not spelled then return {FROZEN} end
local replace = flags % 64 > 31
local app = replace and ARGV[at] or ''
if replace then at = at + 1 end
if flags % 4 > 1 then
  local guarded = tonumber(ARGV[at])
  for j = at + 1, at + guarded do
    if call('HEXISTS', own .. 'd', ARGV[j]) == 0 then
      local ABSENT = 15
      return {ABSENT, version, lineage, epoch, '', last, 0, 0, 0, 0, 0, {}, {}, {ARGV[j], ''}}
    end
  end
  at = at + 1 + guarded
end
local mode, operation = math.floor(flags / 1024) % 4, math.floor(flags / 4096)
local one = nsets == 1 and ndels == 0 and base < 0 and operation == 0 and not replace

-- names[1..nsets] are set to values[j], the rest is deleted.
local names, values, spellings, total, old, entries = false, false, false, 1, false, false
if not one then
  names, values, old = {}, {}, {}
  for j = 1, nsets do
    names[j], values[j] = ARGV[FIRST + 2 * j - 2], ARGV[FIRST + 2 * j - 1]
  end
  if replace then
    local kept = {}
    for j = 1, nsets do kept[names[j]] = true end
    local there = exists and call('HKEYS', own .. 'd') or {}
    for j = 1, #there do
      if not kept[there[j]] then names[#names + 1] = there[j] end
    end
  else
    for j = 1, ndels do names[nsets + j] = ARGV[deleted_from + j - 1] end
  end
  total = #names
  if exists and total > 0 then
    old = gather('HMGET', own .. 'd', names)
    if spelled then entries = gather('HMGET', own .. 'c', names) end
  end
end
local expected, expected_spelling
if operation == 6 then
  expected, expected_spelling = ARGV[at], ARGV[at + 1]
  at = at + 2
end
if flags % 128 > 63 and not one then
  spellings = {}
  for j = 1, nsets do spellings[j] = ARGV[at + j - 1] end
  at = at + nsets
end

-- An operation turns its operand into the value to be set; all reads, no writes. Its functions are
-- made in here, so that a plain write does not pay for them.
local result
if operation > 0 then
  local INCR, APPEND, MAX, SETNX, CAS = 1, 2, 3, 5, 6
  local PRECONDITION, TYPE_MISMATCH, NOT_AN_INTEGER, OUT_OF_RANGE = 16, 17, 18, 19
  local before, operand = old[1], values[1]
  local entry, spelling = entries and entries[1] or '', spellings and spellings[1] or ''
  -- With the value that stands in the way, or of other refusals its beginning, for its type.
  local function refused(status)
    local shown = before or ''
    if status ~= PRECONDITION then shown = sub(shown, 1, 64) end
    return {status, version, lineage, epoch, '', last, 0, 0, 0, 0, 0, {}, {}, {names[1], shown}}
  end
  result = operand
  if operation == SETNX then
    if before then return refused(PRECONDITION) end
  elseif operation == CAS then
    local fits = (before or '') == expected
    if not fits and before and expected ~= '' and (entry ~= '' or expected_spelling ~= '') then
      local mine = imprint(before, entry)
      fits = mine ~= '?' and mine == imprint(expected, expected_spelling)
    end
    if not fits then return refused(PRECONDITION) end
  elseif operation == APPEND then
    if not before or before == '[]' then
      result = '[' .. operand .. ']'
    elseif sub(before, 1, 1) == '[' then
      result = sub(before, 1, -2) .. ',' .. operand .. ']'
    else
      return refused(TYPE_MISMATCH)
    end
    if #result > MOST_VALUE then return refused(TOO_LARGE) end
    if entry ~= '' or spelling ~= '' or #result > HASHED_BYTES then spelling = '?' end
  elseif before and not find(before, '^[-0-9]') then
    return refused(TYPE_MISMATCH)
  elseif before and operation == INCR then
    local function in_int64(text)
      local minus, digits = match(text, '^(-?)(%d+)$')
      local most = minus == '-' and '9223372036854775808' or '9223372036854775807'
      return #digits < 19 or (#digits == 19 and digits <= most)
    end
    -- Short numbers that are not spelled canonically come with their canonical text.
    local number = before
    if sub(entry, 1, 1) == '=' and not find(before, '^-?%d+$') then number = sub(entry, 2) end
    if not find(number, '^-?%d+$') then return refused(NOT_AN_INTEGER) end
    if not in_int64(number) then return refused(OUT_OF_RANGE) end
    if #number < 16 and #operand < 16 then
      result = format('%.0f', tonumber(number) + tonumber(operand) + 0)
    else
      -- A double holds 15 digits, so the two halves of each number are added separately.
      local HALF, high, low = 10000000000, 0, 0
      for _, text in ipairs({number, operand}) do
        local minus, digits = match(text, '^(-?)(%d+)$')
        local sign = minus == '-' and -1 or 1
        high = high + sign * (tonumber(sub(digits, 1, -11)) or 0)
        low = low + sign * tonumber(sub(digits, -10))
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
    spelling = ''
  elseif before then
    -- MAX and MIN. A number as sign, place of its first digit, and digits without the zeros around
    -- them: exact at any size.
    local function parts(text)
      local minus, whole, fraction, power = match(text, '^(-?)(%d+)%.?(%d*)[eE]?([-+]?%d*)$')
      local digits = whole .. fraction
      local zeros = #match(digits, '^0*')
      local place = #whole - zeros + (tonumber(power) or 0)
      digits = match(sub(digits, zeros + 1), '^(.-)0*$')
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
    if not greater(high, low) then result, spelling = before, entry end
  end
  values[1], spellings = result, {spelling}
end

local changed, floor, clash, whole, made = false, 0, false, 1, true
local sets, deletes, index, befores, conflicts = false, false, false, false, false
local imprints, no_imprints, more_keys, nbytes = false, false, 0, bytes
local next_text = format('%.0f', version + 1)
local name, value, mark = ARGV[FIRST], ARGV[FIRST + 1], ''
if one then
  local before = exists and call('HGET', own .. 'd', name)
  local spelling = flags % 128 > 63 and ARGV[at] or ''
  nbytes = bytes + #value
  if not before then
    nbytes, more_keys = nbytes + #name, 1
    if spelling ~= '' then imprints = {name, spelling} end
  else
    local entry = spelled and call('HGET', own .. 'c', name)
    nbytes = nbytes - #before
    mark = imprint(before, entry)
    made = before ~= value
    if made and (entry or spelling ~= '') then
      made = mark == '?' or mark ~= imprint(value, spelling)
    end
    if spelling ~= '' then
      imprints = {name, spelling}
    elseif entry then
      no_imprints = {name}
    end
  end
  if not made then whole, imprints, no_imprints = 0, false, false end
else
  sets, deletes, index, befores, conflicts = {}, {}, {}, {}, {}
  if base >= 0 and base < version and mode ~= OVERWRITE and total > 0 then
    changed = gather('ZMSCORE', own .. 'k', names)
    floor = tonumber(call('HGET', KEYS[1], 'f'))
  end
end
for j = 1, one and 0 or total do
  local name, before, conflict = names[j], old[j], false
  local entry = entries and entries[j] or nil
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
    local value, spelling = values[j], spellings and spellings[j] or ''
    local same = before == value
    if not same and before and (entry or spelling ~= '') then
      local mine = imprint(before, entry)
      same = mine ~= '?' and mine == imprint(value, spelling)
    end
    if same then
      whole = 0
    else
      sets[#sets + 1] = name
      sets[#sets + 1] = value
      index[#index + 1] = next_text
      index[#index + 1] = name
      befores[#befores + 1] = before and imprint(before, entry) or ''
      if spelling ~= '' then
        imprints = imprints or {}
        imprints[#imprints + 1] = name
        imprints[#imprints + 1] = spelling
      elseif entry then
        no_imprints = no_imprints or {}
        no_imprints[#no_imprints + 1] = name
      end
      if before then
        nbytes = nbytes + #value - #before
      else
        nbytes = nbytes + #name + #value
        more_keys = more_keys + 1
      end
    end
  elseif before then
    deletes[#deletes + 1] = name
    index[#index + 1] = next_text
    index[#index + 1] = name
    befores[#befores + 1] = imprint(before, entry)
    if entry then
      no_imprints = no_imprints or {}
      no_imprints[#no_imprints + 1] = name
    end
    nbytes = nbytes - #name - #before
    more_keys = more_keys - 1
  else
    whole = 0
  end
end
if mode == WHOLE and base >= 0 and base < version then clash = true end
if clash and mode ~= YIELD then
  return {CONFLICT, version, lineage, epoch, '', last, 0, 0, 0, 0, 0, {}, {}, conflicts}
end
if index then made = not exists or #index > 0 end
if made and nbytes > MOST_BYTES and nbytes > bytes then
  return {TOO_LARGE, version, lineage, epoch, '', last}
end
if more_keys > 0 and (exists and call('HLEN', own .. 'd') or 0) + more_keys > MOST_KEYS then
  return {TOO_MANY_KEYS, version, lineage, epoch, '', last}
end
if imprints then call('HLEN', own .. 'c') end  -- for its type

-- From here on everything is written.
if made and not exists then
  call('DEL', own .. 'd', own .. 'k', own .. 'j', own .. 'c', own .. 'w')
  if free_id then call('DEL', free_id) end
  epoch = sub(redis.sha1hex('epoch' .. ARGV[8]), 1, TOKEN)
end
if one then
  if made then
    call('ZADD', own .. 'k', next_text, name)
    call('HSET', own .. 'd', name, value)
  end
else
  if #index > 0 then write('ZADD', own .. 'k', index) end
  if #sets > 0 then write('HSET', own .. 'd', sets) end
  if #deletes > 0 then write('HDEL', own .. 'd', deletes) end
end
local lineage_before = ''
if made then
  lineage_before = exists and lineage or '-'
  lineage = sub(redis.sha1hex((exists and lineage or epoch) .. ARGV[8]), 1, TOKEN)
  local bytes_text = format('%.0f', nbytes)
  if seq > 0 then
    call('HSET', KEYS[1], 'v', next_text, 'l', lineage, 'n', bytes_text, 'm', now,
        'w', device, 'i' .. device, ARGV[6] .. ' ' .. ARGV[7] .. ' ' .. next_text .. behind)
  else
    call('HSET', KEYS[1], 'v', next_text, 'l', lineage, 'n', bytes_text, 'm', now, 'w', device)
  end
  if not exists then
    call('HSET', KEYS[1], 'e', epoch, 'f', '0', 'u', ARGV[2], 'c', now, 't', now)
    call('HDEL', KEYS[1], 'r')
  end
elseif seq > 0 then
  call('HSET', KEYS[1], 'i' .. device, ARGV[6] .. ' ' .. ARGV[7] .. ' ' .. meta[1] .. behind)
end
if app ~= '' and made then call('HSET', KEYS[1], 'a', app) end
if imprints then
  write('HSET', own .. 'c', imprints)
  call('PEXPIREAT', own .. 'c', format('%.0f', refreshed + TTL))
  if not spelled then call('HSET', KEYS[1], 'z', '2') end
end
if no_imprints then write('HDEL', own .. 'c', no_imprints) end
--w if made then note_writer(own .. 'w', next_text, epoch, refreshed + TTL, one and name, sets,
--w     deletes) end
if seq > 0 then
  last = seq
  if not streams and call('HLEN', KEYS[1]) > MOST_STREAMS then
    local all, oldest, lowest = call('HGETALL', KEYS[1]), nil, nil
    for j = 1, #all, 2 do
      if sub(all[j], 1, 1) == 'i' and all[j] ~= 'i' .. device then
        local used = tonumber(match(all[j + 1], '^%S+ %d+ (%d+)'))
        if not lowest or used < lowest then oldest, lowest = all[j], used end
      end
    end
    if oldest then call('HDEL', KEYS[1], oldest) end
  end
elseif free_id then
  local MINUTES, LEAST, MOST = 600, 64, 32768
  local second, at_version = tonumber(clock[1]), made and version + 1 or version
  call('ZADD', free_id, format('%.0f', second * VERSIONS + at_version % VERSIONS), ARGV[9])
  -- Once an hour: every time would cost a line of the append-only file.
  local most = math.max(TTL - HOUR, TTL / 2)
  if call('PTTL', free_id) < most then call('PEXPIRE', free_id, TTL) end
  local count = call('ZCARD', free_id)
  if count > LEAST and count % 32 == 0 then
    local due = call('ZCOUNT', free_id, '-inf', format('%.0f', (second - MINUTES) * VERSIONS))
    due = math.max(math.min(due, count - LEAST), count - MOST)
    if due > 0 then call('ZREMRANGEBYRANK', free_id, 0, due - 1) end
  end
end

if deletes and #deletes > 0 then
  local spare = call('ZCARD', own .. 'k') - call('HLEN', own .. 'd')
  if spare > TOMBSTONES then
    -- Drop the oldest half of the tombstones, so that this loop runs once in many deletions.
    local there, names_left = {}, call('HKEYS', own .. 'd')
    for j = 1, #names_left do there[names_left[j]] = true end
    local drop, dropped, from = spare - math.floor(TOMBSTONES / 2), {}, 0
    while #dropped < drop do
      local part = call('ZRANGE', own .. 'k', from, from + 2999, 'WITHSCORES')
      if #part == 0 then break end
      for j = 1, #part, 2 do
        if #dropped < drop and not there[part[j]] then
          dropped[#dropped + 1] = part[j]
          floor = tonumber(part[j + 1])
        end
      end
      from = from + 3000
    end
    write('ZREM', own .. 'k', dropped)
    call('HSET', KEYS[1], 'f', format('%.0f', floor))
  end
end

if made then
  -- One entry a version: its token, then the changed keys with the imprints of what they were.
  local entry, length = lineage, nil
  if one then
    entry = entry .. ' ' .. #name .. ' ' .. #mark .. ' ' .. name .. ' ' .. mark
  elseif #befores <= FEW_KEYS then
    for j = 1, #befores do
      local changed_name, was = index[2 * j], befores[j]
      entry = entry .. ' ' .. #changed_name .. ' ' .. #was .. ' ' .. changed_name .. ' ' .. was
    end
  else
    entry = long_entry(entry, index, befores)
  end
  length = redis.pcall('RPUSH', own .. 'j', entry)
  if type(length) ~= 'number' then
    call('DEL', own .. 'j')
    length = call('RPUSH', own .. 'j', entry)
  end
  if length == 1 then
    call('PEXPIREAT', own .. 'j', format('%.0f', refreshed + TTL))
  elseif length > JOURNAL + SLACK then
    call('LTRIM', own .. 'j', -JOURNAL, -1)
  end
end

if made and not exists then
  expire(now + TTL, 'mdkjcow')
elseif now - refreshed > HOUR then
  refreshed = now
  call('HSET', KEYS[1], 't', now)
  expire(now + TTL, 'mdkjcow')
elseif bytes == 0 and made then
  -- The data hash was empty, hence absent, and has just been made anew.
  expire(refreshed + TTL, 'dk')
end

--@ if made and exists then
--@   redis.pcall('ZADD', 'ed:' .. sub(KEYS[1], 3, -40), 'NX', meta[1], sub(KEYS[1], -38, -3))
--@ elseif made then
--@   told_created(ARGV[2], device, epoch, lineage, app, now + TTL)
--@ end
local nodes = meta[5]
if made and nodes and nodes ~= node then
  -- C2 <sid> <version> <epoch> <lineage> <lineage before> <#device> <#correlation> <#trace>
  --    <pairs> <lengths...>\n, then the texts one after another.
  if one then sets, deletes = {name, value}, {} end
  local texts, sizes = {}, {}
  for j = 1, #sets do texts[j] = sets[j] end
  for j = 1, #deletes do texts[#sets + j] = deletes[j] end
  for j = 1, #texts do sizes[j] = ' ' .. #texts[j] end
  local trace = flags % 8 > 3 and ARGV[#ARGV] or ''
  local payload = 'C2 ' .. sub(KEYS[1], -38, -3) .. ' ' .. next_text .. ' ' .. epoch .. ' '
      .. lineage .. ' ' .. lineage_before .. ' ' .. #device .. ' ' .. #ARGV[9] .. ' ' .. #trace
      .. ' ' .. #sets / 2 .. table.concat(sizes) .. '\n' .. device .. ARGV[9] .. trace
      .. table.concat(texts)
  local channel = match(KEYS[1], '^s:({[^}]*}:)')
  for name in string.gmatch(nodes, '%S+') do
    if name ~= node then redis.pcall('SPUBLISH', channel .. name, payload) end
  end
end

version = made and version + 1 or version
if exists and whole == 1 and not result and not replace then
  return {OK, version, lineage, epoch, lineage_before, last, now}
end
local times = call('HMGET', KEYS[1], 'c', 'm')
if result or replace then whole = 0 end
if one or whole == 1 then sets, deletes, conflicts = {}, {}, conflicts or {} end
if result and not sets[1] then result = old[1] or '' end
return {OK, version, lineage, epoch, lineage_before, last, tonumber(times[2]), exists and 0 or 1,
    tonumber(times[1]), refreshed + TTL, whole, sets, deletes, conflicts, result,
    result and (sets[1] and spellings[1] or entries and entries[1] or '') or nil}
