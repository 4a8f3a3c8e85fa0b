"""What the Redis store does inside the server: one script call per operation.

A script is the transaction here: nothing else runs while it does. Redis
refuses a script for lack of memory, as a read-only replica or with a full
disk at its first write only, so everything that can fail is read before
anything is written: an error means that nothing was done.

Keys. A subscriber's key names a sorted set (score = mid), as in the data of
gopush-cluster. Everything else begins with \\x01, which no subscriber's key
holds:

- ``\\x01s`` KEY    what is known of the key: eight doubles, see _STATE
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
from message.config import StoreLimits
from message.storage.base import FENCE_S, ID_GRACE_S

# A full key is trimmed when it is over a limit by this share of it, not at every save.
TRIM_SLACK = 32


class Script:
    """A script's text and the name that the server gives it."""

    __slots__ = ("body", "sha")

    def __init__(self, body: str) -> None:
        self.body = body.encode()
        self.sha = sha1(self.body).hexdigest().encode()


# The clock: the server's own, but never below what was heard of it before. ARGV[1] is what the
# asking node heard, plus the time that has passed there since; it counts only after the server's
# clock was set back.
_CLOCK = """
local time = redis.call('TIME')
local wall_s = tonumber(time[1])
local clock = (wall_s * 1000000 + tonumber(time[2])) * 10
clock = clock - clock % {step}
local highest = tonumber(redis.call('GET', '\\1clock') or 0)
clock = math.max(clock, highest, tonumber(ARGV[1]))
local function text(number) return string.format('%.0f', number) end
"""

# Members are {"msg":M,"expire":S,"mid":N}; those of gopush-cluster have no mid.
_MEMBERS = """
-- Payload bytes, second of the end (0 = no member of ours), mid as text (nil in older data).
local function measure(member)
  local tail = string.sub(member, -64)
  local at, expire, mid = string.match(tail, '(),"expire":(%d+),"mid":(%d+)}$')
  if not at then at, expire = string.match(tail, '(),"expire":(%d+)}$') end
  local size = #member
  if at then
    size = math.max(#member - #tail + at - 8, 0)
    expire = tonumber(expire)
  else
    local ok, value = pcall(cjson.decode, member)
    expire = ok and type(value) == 'table' and value.expire
  end
  -- A year after 5000 is not from us, and would not fit a TTL.
  if type(expire) == 'number' and expire > 0 and expire < 1e11 then return size, expire, mid end
  return size, 0, mid
end
local function unindex(members)
  local entries = {}
  for _, member in ipairs(members) do
    local size, _, mid = measure(member)
    if mid then entries[#entries + 1] = mid .. ' ' .. size .. ' ' .. KEYS[1] end
    if #entries == 1000 then redis.call('ZREM', '\\1expiry', unpack(entries)); entries = {} end
  end
  if #entries > 0 then redis.call('ZREM', '\\1expiry', unpack(entries)) end
end
"""

# last: highest mid settled; stored: mid of the newest message, 0 = none; count, bytes: messages and
# their payloads, expired ones that are still there included; trimmed: highest mid removed by the
# limit, 0 = none; trimmed_until: when the last removed one would have expired; until_s: when
# everything of the key has ended; keep_s: until when the server has been told to keep it.
# Packed: as text, reading and writing takes a fifth of the whole script.
_STATE = """
local function read_state(name)
  local value = redis.call('GET', name)
  if not value or #value ~= 64 then return nil end
  local s = {}
  s.last, s.stored, s.count, s.bytes, s.trimmed, s.trimmed_until, s.until_s, s.keep_s =
    struct.unpack('<dddddddd', value)
  return s
end
local function write_state(name, s)
  redis.call('SET', name, struct.pack('<dddddddd', s.last, s.stored, s.count, s.bytes, s.trimmed,
    s.trimmed_until, s.until_s, s.keep_s), 'EX', math.max(s.keep_s - wall_s, {keep_margin_s}))
end
"""

# Returns "status clock ..."; see redis.py. Nothing is written before `Writing begins`.
# Its hot path is a batch of one with a known key: 9 calls of the server.
_SAVE = (
    """
local key = KEYS[1]
local state_name = '\\1s' .. key
local id_prefix = '\\1i' .. key .. '\\1'
local deadline, sent = tonumber(ARGV[2]), tonumber(ARGV[3])
local clock_s = math.floor(clock / {ticks_per_s})
local clock_text = text(clock)
if ARGV[4] ~= '' and redis.call('EXISTS', '\\1f' .. ARGV[4]) == 1 then return 'F ' .. clock_text end
if deadline > clock + {max_deadline} then return 'A ' .. clock_text end
if #ARGV == 4 then return 'S ' .. clock_text .. ' 0 0' end

local known = {}
local knows_all = true
for n = 5, #ARGV, 5 do
  local id = ARGV[n]
  local value = redis.call('GET', id_prefix .. id)
  local mid, until_s
  if value and #value == 32 then mid, until_s = struct.unpack('<dd', value) end
  -- The server drops ids by its own clock, which may have been set back.
  if mid and until_s > clock_s then
    known[id] = {mid, until_s, string.sub(value, 17)}
  else
    knows_all = false
  end
end
if deadline < clock and not knows_all then return 'L ' .. clock_text end

local s = read_state(state_name)
if not s then
  local lowest = math.max(highest, tonumber(redis.call('GET', '\\1ahead') or 0))
  s = {last = lowest, stored = 0, count = redis.call('ZCARD', key), bytes = 0, trimmed = 0,
    trimmed_until = 0, until_s = 0, keep_s = 0}
  if s.count > 0 then
    -- Messages of gopush-cluster, or a state that was lost.
"""
    + _MEMBERS
    + """
    local found = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for n = 1, #found, 2 do
      local size, expire = measure(found[n])
      s.bytes = s.bytes + size
      s.until_s = math.max(s.until_s, expire)
      local mid = tonumber(found[n + 1])
      -- Nobody has settled a mid that is a day ahead.
      if mid < clock + 86400 * {ticks_per_s} then s.stored = math.max(s.stored, math.floor(mid)) end
    end
    s.last = math.max(s.last, s.stored)
  end
end

local lower = s.last
if sent > lower and sent <= clock + {max_sent_lead} then lower = sent end
local results, members, entries, changed = {}, {}, {}, {}
local expiry_base = wall_s
if tonumber(time[2]) > 0 then expiry_base = wall_s + 1 end
local least_until_s = math.floor(deadline / {ticks_per_s}) + 1 + {id_grace_s}
for n = 5, #ARGV, 5 do
  local id, digest, payload = ARGV[n], ARGV[n + 1], ARGV[n + 4]
  local until_s = math.max(least_until_s, clock_s + math.min(tonumber(ARGV[n + 3]), {max_id_ttl_s}))
  local first = known[id]
  if first and first[3] ~= digest then
    results[#results + 1] = '2 0 0'
  elseif first then
    results[#results + 1] = '1 ' .. text(first[1]) .. ' 0'
    if until_s > first[2] then
      first[2] = until_s
      changed[id] = first
    end
  else
    local mid, mid_text = clock, clock_text
    if clock < lower + {step} then
      mid = math.floor(lower / {step}) * {step} + {step}
      mid_text = text(mid)
    end
    lower = mid
    s.last = mid
    results[#results + 1] = '0 ' .. mid_text .. ' ' .. text(s.stored)
    first = {mid, until_s, digest}
    known[id] = first
    changed[id] = first
    local expire_s = tonumber(ARGV[n + 2])
    if expire_s > 0 then
      local ends, size = expiry_base + expire_s, #payload
      members[#members + 1] = mid_text
      members[#members + 1] = '{"msg":' .. payload .. ',"expire":' .. ends .. ',"mid":' .. mid_text .. '}'
      entries[#entries + 1] = ends
      entries[#entries + 1] = mid_text .. ' ' .. size .. ' ' .. key
      s.stored = mid
      s.bytes = s.bytes + size
      s.count = s.count + 1
      if ends > s.until_s then s.until_s = ends end
    end
  end
end

-- Writing begins. The messages first: a key of another type fails here.
for n = 1, #members, 1000 do
  local to = math.min(n + 999, #members)
  redis.call('ZADD', key, unpack(members, n, to))
  redis.call('ZADD', '\\1expiry', unpack(entries, n, to))
end
for id, one in pairs(changed) do
  redis.call('SET', id_prefix .. id, struct.pack('<dd', one[1], one[2]) .. one[3],
    'EX', math.max(one[2] - wall_s, 1))
  if one[2] > s.until_s then s.until_s = one[2] end
end

local trimmed = 0
if s.count > {max_messages} + {slack_messages} or s.bytes > {max_bytes} + {slack_bytes} then
"""
    + _MEMBERS
    + """
  local removed, from = {}, 0
  local is_over = true
  while is_over do
    local oldest = redis.call('ZRANGE', key, from, from + 63, 'WITHSCORES')
    is_over = #oldest > 0
    for n = 1, #oldest, 2 do
      local mid = tonumber(oldest[n + 1])
      if (s.count <= {max_messages} and s.bytes <= {max_bytes}) or mid == s.stored then
        is_over = false
        break
      end
      local size, expire = measure(oldest[n])
      removed[#removed + 1] = oldest[n]
      s.count = s.count - 1
      s.bytes = math.max(s.bytes - size, 0)
      if expire > wall_s then
        trimmed = trimmed + 1
        s.trimmed = mid
        s.trimmed_until = math.max(s.trimmed_until, expire)
        s.until_s = math.max(s.until_s, expire)
      end
    end
    from = from + 64
  end
  if #removed > 0 then
    redis.call('ZREMRANGEBYRANK', key, 0, #removed - 1)
    unindex(removed)
  end
end

-- The messages are kept a little longer than they live, so that not every save must tell the server.
-- It forgets that with the last message of a key.
local is_due = s.until_s + {keep_margin_s} > s.keep_s
if is_due then s.keep_s = s.until_s + {keep_ahead_s} end
if is_due or s.count * 2 == #members then redis.call('EXPIRE', key, s.keep_s - wall_s) end
write_state(state_name, s)
if s.last > clock then
  -- What is just above the clock, mids of one batch, may count as the clock; what is far above may
  -- not: it would take the clock with it, and the next `sent` with that.
  if s.last <= clock + {small_lead} then
    redis.call('SET', '\\1clock', text(s.last))
  elseif s.last > tonumber(redis.call('GET', '\\1ahead') or 0) then
    redis.call('SET', '\\1ahead', text(s.last))
  end
elseif clock > highest + {ticks_per_s} then
  redis.call('SET', '\\1clock', clock_text)
end
local ignored = 0
if sent > clock + {max_sent_lead} then ignored = 1 end
return 'S ' .. clock_text .. ' ' .. trimmed .. ' ' .. ignored .. ' ' .. table.concat(results, ' ')
"""
)

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
local today = math.floor(wall_s / 86400)
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
redis.call('EXPIRE', name, text((tonumber(ARGV[5]) + 1) * 86400))
return text(clock)
"""

# ARGV: bound, device. Returns {wall_s, "mid day" or nil}.
_ACKNOWLEDGED = """
return {text(wall_s), redis.call('HGET', '\\1a' .. KEYS[1], ARGV[2])}
"""

# ARGV: bound, most. Returns {clock, entries, messages}.
_REMOVE_EXPIRED = """
local entries = redis.call('ZRANGEBYSCORE', '\\1expiry', '-inf', text(wall_s), 'LIMIT', 0, ARGV[2])
local states, messages = {}, 0
for _, one in ipairs(entries) do
  local mid, size, key = string.match(one, '^(%d+) (%d+) (.*)$')
  local removed = redis.call('ZREMRANGEBYSCORE', key, mid, mid)
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
local is_due = clock > highest + {ticks_per_s} or (ARGV[2] == 'keep' and clock > highest)
if is_due then redis.call('SET', '\\1clock', text(clock)) end
"""

_TELL_CLOCK = """
return text(clock)
"""

_FENCE = """
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
            "slack_messages": limits.max_messages_per_key // TRIM_SLACK,
            "max_bytes": limits.max_bytes_per_key,
            "slack_bytes": limits.max_bytes_per_key // TRIM_SLACK,
        }

        def script(*parts: str) -> Script:
            body = "".join(parts)
            for name, value in values.items():
                body = body.replace("{" + name + "}", str(value))
            return Script(body)

        self.save = script(_CLOCK, _STATE, _SAVE)
        self.load = script(_CLOCK, _MEMBERS, _STATE, _LOAD)
        self.inspect = script(_CLOCK, _INSPECT)
        self.delete_key = script(_CLOCK, _MEMBERS, _STATE, _DELETE_KEY)
        self.delete_message = script(_CLOCK, _MEMBERS, _STATE, _DELETE_MESSAGE)
        self.acknowledge = script(_CLOCK, _ACKNOWLEDGE)
        self.acknowledged = script(_CLOCK, _ACKNOWLEDGED)
        self.remove_expired = script(_CLOCK, _KEEP_CLOCK, _STATE, _REMOVE_EXPIRED)
        self.clock = script(_CLOCK, _KEEP_CLOCK, _TELL_CLOCK)
        self.fence = script(_CLOCK, _FENCE)
        self.is_fenced = script(_CLOCK, _IS_FENCED)

    def all(self) -> list[Script]:
        """Every script, to be loaded on a new connection."""
        return list(vars(self).values())
