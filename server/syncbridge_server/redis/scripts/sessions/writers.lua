-- What a script begins with where it is noted who wrote each key (SYNCBRIDGE_KEY_WRITERS): a
-- function that it names in lines that begin with "--w ".
-- Format 2; docs/decisions/0009-the-layout-of-redis.md.

-- `name`: the only key that was set; else `sets` (key, value, ...) and `deletes`. A failure here
-- must not make the change look failed. A hash of the wrong type begins anew with the next change.
local function note_writer(key, version, epoch, expires, name, sets, deletes)
  local entry, added = version .. ' ' .. string.sub(epoch, 1, 4) .. ' ' .. ARGV[3], 0
  if name then added = redis.pcall('HSET', key, name, entry) end
  for from = 1, name and 0 or #sets, 3000 do
    local fields = {}
    for j = from, math.min(from + 2998, #sets), 2 do
      fields[#fields + 1], fields[#fields + 2] = sets[j], entry
    end
    local done = redis.pcall('HSET', key, unpack(fields))
    if type(done) ~= 'number' then return redis.call('DEL', key) end
    added = added + done
  end
  if type(added) ~= 'number' then return redis.call('DEL', key) end
  if deletes and #deletes > 0 then redis.pcall('HDEL', key, unpack(deletes)) end
  if added > 0 then redis.call('PEXPIREAT', key, string.format('%.0f', expires)) end
end
