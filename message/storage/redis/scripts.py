"""What the Redis store does inside the server: one script call per operation.

A script is the transaction here: nothing else runs while it does. Redis
refuses a script for lack of memory, as a read-only replica or with a full
disk at its first write only, so everything that can fail is read before
anything is written: an error means that nothing was done. What a full Redis
must do all the same begins with a write that needs no memory: PERSIST of the
clock, which has no end, changes nothing.

Keys. A subscriber's key names a sorted set (score = mid), as in the data of
gopush-cluster. Everything else begins with \\x01, which no subscriber's key
holds:

- ``\\x01s`` KEY    what is known of the key: eight doubles, see lua.py
- ``\\x01a`` KEY    hash: device → "mid day"
- ``\\x01i`` KEY ``\\x01`` ID   a push id: mid and second of its end as doubles, digest of the payload
- ``\\x01f`` NAME   an incarnation that is fenced
- ``\\x01clock``    what the clock was at least, at most a second old while anybody saves
- ``\\x01ahead``    highest mid that was settled far above the clock (`sent`)
- ``\\x01expiry``   sorted set over all keys: "mid size KEY" of each message by the second of its end

What is known of a key is forgotten by the server itself when its messages,
ids and mark have ended, a minute after its last save at the earliest. No mid
is repeated then: a key without a state starts above the clock, which is never
below ``\\x01clock``, and above ``\\x01ahead``.

Numbers in Lua are doubles; mids are multiples of 80 and exact, but must be
written with %.0f: tostring() loses digits.
"""

from __future__ import annotations

from hashlib import sha1

from cluster.mids import MAX_SENT_LEAD, STEP, TICKS_PER_SECOND
from message.storage.limits import StoreLimits
from message.storage.redis import lua
from message.storage.rules import FENCE_S, ID_GRACE_S, SECONDS_PER_DAY
from message.storage.trimming import with_slack


class Script:
    """A script's text and the name that the server gives it."""

    __slots__ = ("body", "by_name", "sha")

    def __init__(self, body: str) -> None:
        self.body = body.encode()
        self.sha = sha1(self.body).hexdigest().encode()
        # How a call of it begins, in the server's protocol.
        self.by_name = b"$7\r\nEVALSHA\r\n$%d\r\n%b\r\n" % (len(self.sha), self.sha)


# ARGV: bound, score to begin above, most messages, most bytes.
# Returns {clock, mark, has_more, score, member, ...}: unexpired ones.
_LOAD = """
local key = KEYS[1]
local most, room = tonumber(ARGV[3]), tonumber(ARGV[4])
local mark = '0'
local s = read_state('\\1s' .. key)
if s and s.trimmed_until > wall_s then mark = text(s.trimmed) end
local page = {text(clock), mark, '0'}
local from, taken, found = 0, 0, nil
repeat
  found = redis.call('ZRANGEBYSCORE', key, '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', from, 64)
  for n = 1, #found, 2 do
    local size, expire = measure(found[n])
    -- What has no readable end is reported, so that it can be counted; it takes no room.
    if expire == 0 then
      page[#page + 1] = found[n + 1]
      page[#page + 1] = found[n]
    elseif expire > wall_s then
      room = room - size
      if taken > 0 and (taken >= most or room < 0) then
        page[3] = '1'
        return page
      end
      taken = taken + 1
      page[#page + 1] = found[n + 1]
      page[#page + 1] = found[n]
    end
  end
  from = from + 64
until #found == 0
return page
"""

# Returns {clock, wall_s, [score, member, ...], [device, "mid day", ...]}.
_INSPECT = """
return {text(clock), text(wall_s), redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', '\\1a' .. KEYS[1])}
"""

_DELETE_KEY = """
local key = KEYS[1]
local members = redis.call('ZRANGE', key, 0, -1)
local s = read_state('\\1s' .. key)
local deleted = 0
for _, member in ipairs(members) do
  local _, expire = measure(member)
  if expire > wall_s then deleted = deleted + 1 end
end
redis.call('DEL', key, '\\1a' .. key)
unindex(members)
if s then
  s.stored, s.count, s.bytes, s.trimmed, s.trimmed_until = 0, 0, 0, 0, 0
  -- The next message's set is a new one, which nobody has told how long to keep.
  s.keep_s = 0
  write_state('\\1s' .. key, s)
end
return deleted
"""

# ARGV: bound, mid.
_DELETE_MESSAGE = """
local key = KEYS[1]
local found = redis.call('ZRANGEBYSCORE', key, ARGV[2], ARGV[2], 'WITHSCORES')
local s = read_state('\\1s' .. key)
local was_there = 0
for n = 1, #found, 2 do
  if text(tonumber(found[n + 1])) == ARGV[2] then
    local size, expire = measure(found[n])
    redis.call('ZREM', key, found[n])
    unindex({found[n]})
    if s then
      s.count = math.max(s.count - 1, 0)
      s.bytes = math.max(s.bytes - size, 0)
    end
    if expire > wall_s then was_there = 1 end
  end
end
if s and #found > 0 then write_state('\\1s' .. key, s) end
return was_there
"""

# ARGV: bound, device, mid, most devices, days to remember.
_ACKNOWLEDGE = """
local name = '\\1a' .. KEYS[1]
local today = math.floor(wall_s / {s_per_day})
local value = redis.call('HGET', name, ARGV[2])
local mid = ARGV[3]
if value then
  local known = string.match(value, '^(%d+) ')
  if tonumber(known) > tonumber(mid) then mid = known end
else
  local excess = redis.call('HLEN', name) - tonumber(ARGV[4]) + 1
  if excess > 0 then
    local all, devices = redis.call('HGETALL', name), {}
    for n = 1, #all, 2 do
      local seen_mid, day = string.match(all[n + 1], '^(%d+) (%d+)$')
      devices[#devices + 1] = {name = all[n], mid = tonumber(seen_mid), day = tonumber(day)}
    end
    table.sort(devices, function(a, b)
      if a.day ~= b.day then return a.day < b.day end
      return a.mid < b.mid
    end)
    for n = 1, excess do redis.call('HDEL', name, devices[n].name) end
  end
end
redis.call('HSET', name, ARGV[2], mid .. ' ' .. text(today))
redis.call('EXPIRE', name, text((tonumber(ARGV[5]) + 1) * {s_per_day}))
return text(clock)
"""

# ARGV: bound, device. Returns {wall_s, "mid day" or nil}.
_ACKNOWLEDGED = """
return {text(wall_s), redis.call('HGET', '\\1a' .. KEYS[1], ARGV[2])}
"""

# ARGV: bound, most. Returns {clock, entries, messages}.
_REMOVE_EXPIRED = """
if refusal then return {err = refusal} end
local entries = redis.call('ZRANGEBYSCORE', '\\1expiry', '-inf', text(wall_s), 'LIMIT', 0, ARGV[2])
local states, messages = {}, 0
for _, one in ipairs(entries) do
  local mid, size, key = string.match(one, '^(%d+) (%d+) (.*)$')
  -- Somebody may have put something else under the key: that must not keep the others here.
  local removed = redis.pcall('ZREMRANGEBYSCORE', key, mid, mid)
  if type(removed) == 'table' then removed = 0 end
  messages = messages + removed
  if removed > 0 then
    local s = states[key] or read_state('\\1s' .. key)
    if s then
      s.count = math.max(s.count - removed, 0)
      s.bytes = math.max(s.bytes - tonumber(size), 0)
      states[key] = s
    end
  end
end
for key, s in pairs(states) do write_state('\\1s' .. key, s) end
for n = 1, #entries, 1000 do
  redis.call('ZREM', '\\1expiry', unpack(entries, n, math.min(n + 999, #entries)))
end
return {text(clock), #entries, messages}
"""

# Written once a second and at the end (ARGV[2]), so that a clock that was told is not told again
# after a restart.
_KEEP_CLOCK = """
local refusal
if clock > highest + {ticks_per_s} or (ARGV[2] == 'keep' and clock > highest) then
  redis.pcall('PERSIST', '\\1clock')
  refusal = redis.pcall('SET', '\\1clock', text(clock)).err
end
"""

# Comet nodes cannot start without it: it is told, too, by a server that takes no writes; but for a
# replica, in whose place another server has the clock.
_TELL_CLOCK = """
if refusal and string.find(refusal, 'READONLY', 1, true) then return {err = refusal} end
return text(clock)
"""

_FENCE = """
redis.pcall('PERSIST', '\\1clock')
redis.call('SET', '\\1f' .. ARGV[2], '1', 'EX', {fence_s})
return text(clock)
"""

_IS_FENCED = """
return redis.call('EXISTS', '\\1f' .. ARGV[2])
"""


class Scripts:
    """The scripts with a store's limits in them: servers keep a version for each set of limits."""

    def __init__(self, limits: StoreLimits) -> None:
        values = {
            "step": STEP,
            "ticks_per_s": TICKS_PER_SECOND,
            "s_per_day": SECONDS_PER_DAY,
            "max_sent_lead": MAX_SENT_LEAD,
            # 10 ms: 1,250 messages of one batch.
            "small_lead": TICKS_PER_SECOND // 100,
            "id_grace_s": ID_GRACE_S,
            "fence_s": FENCE_S,
            # A key's state and messages outlive their use by this at least, so that a clock which is
            # set back a little does not find them gone.
            "keep_margin_s": 60,
            "keep_ahead_s": 660,
            "max_deadline": limits.max_deadline_s * TICKS_PER_SECOND,
            "max_id_ttl_s": limits.max_id_ttl_s,
            "max_messages": limits.max_messages_per_key,
            "most_messages": with_slack(limits.max_messages_per_key),
            "max_bytes": limits.max_bytes_per_key,
            "most_bytes": with_slack(limits.max_bytes_per_key),
        }

        def script(*parts: str) -> Script:
            body = "".join(parts)
            for name, value in values.items():
                body = body.replace("{" + name + "}", str(value))
            return Script(body)

        self.save = script(lua.CLOCK, lua.STATE, lua.SAVE)
        self.load = script(lua.CLOCK, lua.MEMBERS, lua.STATE, _LOAD)
        self.inspect = script(lua.CLOCK, _INSPECT)
        self.delete_key = script(lua.CLOCK, lua.MEMBERS, lua.STATE, _DELETE_KEY)
        self.delete_message = script(lua.CLOCK, lua.MEMBERS, lua.STATE, _DELETE_MESSAGE)
        self.acknowledge = script(lua.CLOCK, _ACKNOWLEDGE)
        self.acknowledged = script(lua.CLOCK, _ACKNOWLEDGED)
        self.remove_expired = script(lua.CLOCK, _KEEP_CLOCK, lua.STATE, _REMOVE_EXPIRED)
        self.clock = script(lua.CLOCK, _KEEP_CLOCK, _TELL_CLOCK)
        self.fence = script(lua.CLOCK, _FENCE)
        self.is_fenced = script(lua.CLOCK, _IS_FENCED)

    def all(self) -> list[Script]:
        """Every script, to be loaded on a new connection."""
        return list(vars(self).values())
