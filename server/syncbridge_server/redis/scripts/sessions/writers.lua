-- What a script begins with where it is noted who wrote each key (SYNCBRIDGE_KEY_WRITERS): a function
-- that it names in lines that begin with "--w ".
-- Format 2; docs/decisions/0009-the-layout-of-redis.md.

-- `sets`: key, value, ... A refused write here must not make the change look failed. The hash is a
-- memory: of another type, it is begun anew with the next change.
local function note_writer(key, version, epoch, sets, deletes, expires)
  local entry, fields, added = version .. ' ' .. string.sub(epoch, 1, 4) .. ' ' .. ARGV[3], {}, 0
  for j = 1, #sets, 2 do fields[j], fields[j + 1] = sets[j], entry end
  for from = 1, #fields, 3000 do
    local to = math.min(from + 2999, #fields)
    local done = redis.pcall('HSET', key, unpack(fields, from, to))
    if type(done) ~= 'number' then return redis.call('DEL', key) end
    added = added + done
  end
  if #deletes > 0 then redis.pcall('HDEL', key, unpack(deletes)) end
  if added > 0 then redis.call('PEXPIREAT', key, string.format('%.0f', expires)) end
end
