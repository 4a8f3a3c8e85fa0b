"""What the Redis store does inside the server: one script call per operation.

A script is the transaction here: nothing else runs while it does. Redis
refuses a script for lack of memory, as a read-only replica or with a full
disk at its first write only, so everything that can fail is read before
anything is written: an error means that nothing was done.

Keys. A subscriber's key names a sorted set (score = mid), as in the data of
gopush-cluster. Everything else begins with \\x01, which no subscriber's key
holds:

- ``\\x01s`` KEY    what is known of the key: "last stored bytes trimmed trimmed_until until"
- ``\\x01a`` KEY    hash: device → "mid day"
- ``\\x01i`` KEY ``\\x01`` ID   "mid until digest" of a push id
- ``\\x01f`` NAME   an incarnation that is fenced
- ``\\x01clock``    highest clock that a save was answered with, nearly all mids included
- ``\\x01ahead``    highest mid that was settled far above the clock (`sent`)
- ``\\x01expiry``   sorted set over all keys: "mid size KEY" of each message by the second of its end

What is known of a key is forgotten by the server itself when its messages,
ids and mark have ended. No mid is repeated then: a key without a state starts
above ``\\x01clock`` and ``\\x01ahead``, which nothing that was settled exceeds.

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
local key = KEYS[1]
local state_name = '\\1s' .. key
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
local function entry(mid, size) return mid .. ' ' .. text(size) .. ' ' .. key end
local function unindex(members)
  local entries = {}
  for _, member in ipairs(members) do
    local size, _, mid = measure(member)
    if mid then entries[#entries + 1] = entry(mid, size) end
    if #entries == 1000 then redis.call('ZREM', '\\1expiry', unpack(entries)); entries = {} end
  end
  if #entries > 0 then redis.call('ZREM', '\\1expiry', unpack(entries)) end
end
"""

_STATE = """
local function read_state(name)
  local value = redis.call('GET', name)
  if not value then return nil end
  local last, stored, bytes, trimmed, trimmed_until, until_s =
    string.match(value, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  if not last then return nil end
  return {last = tonumber(last), stored = tonumber(stored), bytes = tonumber(bytes),
    trimmed = tonumber(trimmed), trimmed_until = tonumber(trimmed_until), until_s = tonumber(until_s)}
end
local function write_state(name, s)
  redis.call('SET', name, string.format('%.0f %.0f %.0f %.0f %.0f %.0f',
    s.last, s.stored, s.bytes, s.trimmed, s.trimmed_until, s.until_s),
    'EX', text(math.max(s.until_s - wall_s, 0) + {state_margin_s}))
end
"""

# Returns "status clock ..."; see redis.py. Nothing is written before `writing` begins.
_SAVE = """
local deadline, sent = tonumber(ARGV[2]), tonumber(ARGV[3])
local clock_s = math.floor(clock / {ticks_per_s})
if ARGV[4] ~= '' and redis.call('EXISTS', '\\1f' .. ARGV[4]) == 1 then return 'F ' .. text(clock) end
if deadline > clock + {max_deadline} then return 'A ' .. text(clock) end

local items, known = {}, {}
local knows_all = true
for n = 5, #ARGV, 5 do
  local id = ARGV[n]
  local name = '\\1i' .. key .. '\\1' .. id
  if known[name] == nil then
    local value = redis.call('GET', name) or ''
    local mid, until_s = string.match(value, '^(%d+) (%d+) ')
    -- The server drops ids by its own clock, which may have been set back.
    if mid and tonumber(until_s) > clock_s then
      known[name] = {mid = tonumber(mid), until_s = tonumber(until_s), digest = string.sub(value, -16)}
    else
      known[name] = false
      knows_all = false
    end
  end
  items[#items + 1] = {name = name, digest = ARGV[n + 1], expire_s = tonumber(ARGV[n + 2]),
    ttl_s = tonumber(ARGV[n + 3]), payload = ARGV[n + 4]}
end
if deadline < clock and not knows_all then return 'L ' .. text(clock) end
if #items == 0 then return 'S ' .. text(clock) .. ' 0 0' end

local count = redis.call('ZCARD', key)
local s = read_state(state_name)
local ahead = tonumber(redis.call('GET', '\\1ahead') or 0)
if not s then
  s = {last = math.max(highest, ahead), stored = 0, bytes = 0, trimmed = 0, trimmed_until = 0, until_s = 0}
  if count > 0 then
    -- Messages of gopush-cluster, or a state that was lost.
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
local results = {}
local ids, members, entries = {}, {}, {}
local expiry_base = wall_s
if tonumber(time[2]) > 0 then expiry_base = wall_s + 1 end
for n, item in ipairs(items) do
  local until_s = math.max(math.floor(deadline / {ticks_per_s}) + 1 + {id_grace_s},
    clock_s + math.min(item.ttl_s, {max_id_ttl_s}))
  local first = known[item.name]
  if first and first.digest ~= item.digest then
    results[n] = '2 0 0'
  elseif first then
    results[n] = '1 ' .. text(first.mid) .. ' 0'
    if until_s > first.until_s then
      first.until_s = until_s
      ids[item.name] = first
    end
  else
    local mid = clock
    if clock < lower + {step} then mid = math.floor(lower / {step}) * {step} + {step} end
    lower = mid
    s.last = mid
    results[n] = '0 ' .. text(mid) .. ' ' .. text(s.stored)
    known[item.name] = {mid = mid, until_s = until_s, digest = item.digest}
    ids[item.name] = known[item.name]
    if item.expire_s > 0 then
      local ends = expiry_base + item.expire_s
      members[#members + 1] = text(mid)
      members[#members + 1] = '{"msg":' .. item.payload .. ',"expire":' .. text(ends)
        .. ',"mid":' .. text(mid) .. '}'
      entries[#entries + 1] = text(ends)
      entries[#entries + 1] = entry(text(mid), #item.payload)
      s.stored = mid
      s.bytes = s.bytes + #item.payload
      s.until_s = math.max(s.until_s, ends)
      count = count + 1
    end
  end
end

-- Writing begins.
for name, id in pairs(ids) do
  redis.call('SET', name, text(id.mid) .. ' ' .. text(id.until_s) .. ' ' .. id.digest,
    'EX', text(math.max(id.until_s - wall_s, 1)))
  s.until_s = math.max(s.until_s, id.until_s)
end
for n = 1, #members, 1000 do
  local to = math.min(n + 999, #members)
  redis.call('ZADD', key, unpack(members, n, to))
  redis.call('ZADD', '\\1expiry', unpack(entries, n, to))
end

local trimmed = 0
if count > {max_messages} + {slack_messages} or s.bytes > {max_bytes} + {slack_bytes} then
  local removed, from = {}, 0
  local is_over = true
  while is_over do
    local oldest = redis.call('ZRANGE', key, from, from + 63, 'WITHSCORES')
    is_over = #oldest > 0
    for n = 1, #oldest, 2 do
      local mid = tonumber(oldest[n + 1])
      if (count <= {max_messages} and s.bytes <= {max_bytes}) or mid == s.stored then
        is_over = false
        break
      end
      local size, expire = measure(oldest[n])
      removed[#removed + 1] = oldest[n]
      count = count - 1
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

if #members > 0 then redis.call('EXPIRE', key, text(math.max(s.until_s - wall_s, 0) + {state_margin_s})) end
write_state(state_name, s)
-- What is just above the clock, mids of one batch, may count as the clock; what is far above may not:
-- it would take the clock with it, and the next `sent` with that.
local answered = clock
if s.last > clock and s.last <= clock + {small_lead} then answered = s.last end
if answered > highest then redis.call('SET', '\\1clock', text(answered)) end
if s.last > answered and s.last > ahead then redis.call('SET', '\\1ahead', text(s.last)) end
local ignored = 0
if sent > clock + {max_sent_lead} then ignored = 1 end
return 'S ' .. text(clock) .. ' ' .. trimmed .. ' ' .. ignored .. ' ' .. table.concat(results, ' ')
"""

# ARGV: bound, score to begin above, most messages, most bytes.
# Returns {clock, mark, has_more, score, member, ...}: unexpired ones.
_LOAD = """
local most, room = tonumber(ARGV[3]), tonumber(ARGV[4])
local mark = '0'
local s = read_state(state_name)
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
return {text(clock), text(wall_s), redis.call('ZRANGE', key, 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', '\\1a' .. key)}
"""

_DELETE_KEY = """
local members = redis.call('ZRANGE', key, 0, -1)
local s = read_state(state_name)
local deleted = 0
for _, member in ipairs(members) do
  local _, expire = measure(member)
  if expire > wall_s then deleted = deleted + 1 end
end
redis.call('DEL', key, '\\1a' .. key)
unindex(members)
if s then
  s.stored, s.bytes, s.trimmed, s.trimmed_until = 0, 0, 0, 0
  write_state(state_name, s)
end
return deleted
"""

# ARGV: bound, mid.
_DELETE_MESSAGE = """
local found = redis.call('ZRANGEBYSCORE', key, ARGV[2], ARGV[2], 'WITHSCORES')
local s = read_state(state_name)
local was_there = 0
for n = 1, #found, 2 do
  if text(tonumber(found[n + 1])) == ARGV[2] then
    local size, expire = measure(found[n])
    redis.call('ZREM', key, found[n])
    unindex({found[n]})
    if s then s.bytes = math.max(s.bytes - size, 0) end
    if expire > wall_s then was_there = 1 end
  end
end
if s and #found > 0 then write_state(state_name, s) end
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
            # A key's state and messages outlive their use by this, so that a clock which is set
            # back a little does not find them gone.
            "state_margin_s": 60,
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

        self.save = script(_CLOCK, _MEMBERS, _STATE, _SAVE)
        self.load = script(_CLOCK, _MEMBERS, _STATE, _LOAD)
        self.inspect = script(_CLOCK, _MEMBERS, _INSPECT)
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
