package redisstore

import (
	"crypto/sha1"
	"encoding/hex"
)

// script is a script of Lua, and the hash by which a server knows it.
type script struct{ source, hash string }

func newScript(source string) *script {
	sum := sha1.Sum([]byte(source))
	return &script{source, hex.EncodeToString(sum[:])}
}

// The scripts get KEYS: a bucket's indexes by user, by access and by expiry, and then records;
// and ARGV[1]: which attempt this is. Those about several records have an ID in ARGV at the
// place of each record in KEYS, from the fourth on. They compare bytes: a number of Lua is a
// double, and holds neither a version nor any time.
//
// The indexes by time are lazy: an entry stands at the record's time or earlier, so that a
// Touch moves none, and a Save only where the time moves back. A sweep that meets an early
// entry files it anew. The index by user has the user, with its length before it, and the ID.
var (
	saveScript   = newScript(common + saveSource)
	deleteScript = newScript(common + deleteSource)
	touchScript  = newScript(common + touchSource)
	sweepScript  = newScript(common + sweepSource)
	userScript   = newScript(common + userSource)
)

// common is what scripts share. head returns the beginning of a value with all of its user,
// "" where there is none, and something too short for what is no string.
const common = `
local function head(key)
  local h = redis.pcall('GETRANGE', key, 0, 1062)
  if type(h) ~= 'string' then
    if string.find(h.err, 'WRONGTYPE', 1, true) then return '?' end
    return redis.call('GETRANGE', key, 0, 1062)
  end
  if h == '' and redis.call('EXISTS', key) == 1 then return '?' end
  return h
end

local function sound(h) return #h >= 39 and string.byte(h) == 1 end

local function version(h) return string.sub(h, 22, 29) end

local function owner(h)
  return string.sub(h, 38, 39 + 256 * string.byte(h, 38) + string.byte(h, 39))
end

local nobody = '\0\0'

local function later(a, b)
  for i = 1, 8 do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return false
end

local function remove(key, h, id)
  redis.call('DEL', key)
  redis.call('ZREM', KEYS[2], id)
  redis.call('ZREM', KEYS[3], id)
  if sound(h) and owner(h) ~= nobody then redis.call('ZREM', KEYS[1], owner(h) .. id) end
end
`

// What saveSource answers.
const (
	saveWritten = iota
	saveLanded  // before: the stored version is the record's already
	saveConflict
	saveNotFound
	saveCorrupt
	saveUnsure // a create that was sent before: it may have landed and been deleted since
)

// saveSource decides as [session2.Store] says. ARGV: the ID; the version to replace, or none;
// the value; its scores by access and by expiry.
const saveSource = `
local id, prev, value = ARGV[2], ARGV[3], ARGV[4]
local h = head(KEYS[4])
if h == '' then
  if prev ~= '' then return 3 end
  if ARGV[1] ~= '1' then return 5 end
elseif not sound(h) then
  return 4
elseif version(h) == version(value) then
  return 1
elseif version(h) ~= prev then
  return 2
end
redis.call('ZADD', KEYS[2], 'LT', ARGV[5], id)
redis.call('ZADD', KEYS[3], 'LT', ARGV[6], id)
if owner(value) ~= nobody then redis.call('ZADD', KEYS[1], 0, owner(value) .. id) end
redis.call('SET', KEYS[4], value)
if h ~= '' and owner(h) ~= owner(value) then redis.call('ZREM', KEYS[1], owner(h) .. id) end
return 0
`

// deleteSource's ARGV: the ID.
const deleteSource = `
local h = head(KEYS[4])
if h == '' then return 0 end
remove(KEYS[4], h, ARGV[2])
return 1
`

// touchSource's KEYS: the record alone. ARGV: both instants.
const touchSource = `
local h = head(KEYS[1])
if not sound(h) then return 0 end
local accessed, expires = string.sub(h, 2, 9), string.sub(h, 10, 17)
if later(ARGV[2], accessed) then accessed = ARGV[2] end
if later(ARGV[3], expires) then expires = ARGV[3] end
if accessed .. expires ~= string.sub(h, 2, 17) then redis.call('SETRANGE', KEYS[1], 1, accessed .. expires) end
return 1
`

// sweepSource goes by one of the indexes by time. ARGV: the ID of each record from ARGV[4] on;
// and then, at the end, the index's place in KEYS, where a value has its time, and the latest
// time that is old, as an instant and as a score. It returns how many records it has deleted,
// and how many stay filed as old.
//
// The score of a record that stays is rounded down, and a little more: this is arithmetic in
// doubles.
const sweepSource = `
local n = #KEYS
local index, at, limit, old = KEYS[tonumber(ARGV[n + 1])], tonumber(ARGV[n + 2]), ARGV[n + 3], tonumber(ARGV[n + 4])
local function score(t)
  local high, low = -2 ^ 31, 0
  for i = 1, 4 do
    high = high + string.byte(t, i) * 256 ^ (4 - i)
    low = low + string.byte(t, i + 4) * 256 ^ (4 - i)
  end
  return math.floor((high * 2 ^ 32 + low) / 1000) - 1
end
local deleted, stayed = 0, 0
for i = 4, n do
  local h, id = head(KEYS[i]), ARGV[i]
  if h == '' then
    redis.call('ZREM', KEYS[2], id)
    redis.call('ZREM', KEYS[3], id)
  elseif not sound(h) then
    stayed = stayed + 1
  elseif not later(string.sub(h, at, at + 7), limit) then
    remove(KEYS[i], h, id)
    deleted = deleted + 1
  else
    local s = score(string.sub(h, at, at + 7))
    redis.call('ZADD', index, 'XX', s, id)
    if s <= old then stayed = stayed + 1 end
  end
end
return {deleted, stayed}
`

// userSource removes the records of one user, or, without 'all', only what the index has of
// them and is none of theirs any more. ARGV: the user, as values have it, and 'all' or ”;
// from ARGV[4] on the ID of each record. A record that cannot be read is whose the index says
// it is. It returns how many records it has deleted.
const userSource = `
local user, deleted = ARGV[2], 0
for i = 4, #KEYS do
  local h, id = head(KEYS[i]), ARGV[i]
  if h == '' or sound(h) and owner(h) ~= user then
    redis.call('ZREM', KEYS[1], user .. id)
  elseif ARGV[3] == 'all' then
    remove(KEYS[i], h, id)
    redis.call('ZREM', KEYS[1], user .. id)
    deleted = deleted + 1
  end
end
return deleted
`
