-- A change set of a session, as the peers of bench_http.py write it: one atomic round trip.
--
-- KEYS  1 HASH meta: user_id, version, updated_at  2 HASH key -> JSON value  3 HASH key -> version
-- ARGV  1 user   2 version that the caller has   3 overwrite (0 or 1)   4 now
--       5 number of set pairs   6.. key, value, key, value ..., deleted keys
-- Returns {status} (404, 403, 409) or {200, version}.

local meta = redis.call('HMGET', KEYS[1], 'user_id', 'version')
if not meta[1] then return {404} end
if meta[1] ~= ARGV[1] then return {403} end
local base, last = tonumber(ARGV[2]), 5 + 2 * tonumber(ARGV[5])
local keys, sets, deletes = {}, {}, {}
for i = 6, last, 2 do
  keys[#keys + 1] = ARGV[i]
  sets[#sets + 1], sets[#sets + 2] = ARGV[i], ARGV[i + 1]
end
for i = last + 1, #ARGV do
  keys[#keys + 1] = ARGV[i]
  deletes[#deletes + 1] = ARGV[i]
end
if ARGV[3] == '0' then
  for _, changed in ipairs(redis.call('HMGET', KEYS[3], unpack(keys))) do
    if changed and tonumber(changed) > base then return {409} end
  end
end
local version = tonumber(meta[2]) + 1
local versions = {}
for i, key in ipairs(keys) do versions[2 * i - 1], versions[2 * i] = key, version end
if #sets > 0 then redis.call('HSET', KEYS[2], unpack(sets)) end
if #deletes > 0 then redis.call('HDEL', KEYS[2], unpack(deletes)) end
redis.call('HSET', KEYS[3], unpack(versions))
redis.call('HSET', KEYS[1], 'version', version, 'updated_at', ARGV[4])
return {200, version}
