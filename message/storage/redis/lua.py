"""The Redis store's script for a save, and the parts that the other scripts share with it.

See scripts.py for the keys that they use. {names} in braces are put in there.
"""

from __future__ import annotations

# The clock: the server's own, but never below what was heard of it before. ARGV[1] is what the
# asking node heard, plus the time that has passed there since; it counts only after the server's
# clock was set back.
CLOCK = """
local time = redis.call('TIME')
local wall_s = tonumber(time[1])
local clock = (wall_s * 1000000 + tonumber(time[2])) * 10
clock = clock - clock % {step}
local highest = tonumber(redis.call('GET', '\\1clock') or 0)
clock = math.max(clock, highest, tonumber(ARGV[1]))
local function text(number) return string.format('%.0f', number) end
"""

# Members are {"msg":M,"expire":S,"mid":N}; those of gopush-cluster have no mid.
MEMBERS = """
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
STATE = """
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

# ARGV: bound, then what requests.pack_save() packs: of the batch, and three of each item.
# Returns what replies.py reads. Nothing is written before `Writing begins`.
# Its hot path is a batch of one with a known key: 9 calls of the server.
SAVE = (
    """
local key = KEYS[1]
local state_name = '\\1s' .. key
local id_prefix = '\\1i' .. key .. '\\1'
local deadline, sent = struct.unpack('<dd', ARGV[2])
local incarnation = string.sub(ARGV[2], 17)
local clock_s = math.floor(clock / {ticks_per_s})
local clock_text = text(clock)
if incarnation ~= '' and redis.call('EXISTS', '\\1f' .. incarnation) == 1 then return 'F ' .. clock_text end
if deadline > clock + {max_deadline} then return 'A ' .. clock_text end
if #ARGV == 2 then return 'S ' .. clock_text .. ' 0 0' end

local known = {}
local knows_all = true
for n = 3, #ARGV, 3 do
  local id = ARGV[n]
  local value = id ~= '' and redis.call('GET', id_prefix .. id)
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
    + MEMBERS
    + """
    local found = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for n = 1, #found, 2 do
      local size, expire = measure(found[n])
      s.bytes = s.bytes + size
      s.until_s = math.max(s.until_s, expire)
      local mid = tonumber(found[n + 1])
      -- Nobody has settled a mid that is a day ahead.
      if mid < clock + {s_per_day} * {ticks_per_s} then s.stored = math.max(s.stored, math.floor(mid)) end
    end
    s.last = math.max(s.last, s.stored)
  end
end

local lower, first_prev = s.last, s.stored
if sent > lower and sent <= clock + {max_sent_lead} then lower = sent end
local results, members, entries, changed = {}, {}, {}, {}
local expiry_base = wall_s
if tonumber(time[2]) > 0 then expiry_base = wall_s + 1 end
local least_until_s = math.floor(deadline / {ticks_per_s}) + 1 + {id_grace_s}
for n = 3, #ARGV, 3 do
  local id, payload = ARGV[n], ARGV[n + 2]
  local expire_s, id_ttl_s = struct.unpack('<dd', ARGV[n + 1])
  local digest = string.sub(ARGV[n + 1], 17)
  local until_s = math.max(least_until_s, clock_s + math.min(id_ttl_s, {max_id_ttl_s}))
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
    if id ~= '' then
      first = {mid, until_s, digest}
      known[id] = first
      changed[id] = first
    end
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
if s.count > {most_messages} or s.bytes > {most_bytes} then
"""
    + MEMBERS
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
if #results == 1 and #members == 2 and trimmed == 0 and sent <= clock + {max_sent_lead} then
  return 'P' .. struct.pack('<ddd', clock, lower, first_prev)
end
local ignored = 0
if sent > clock + {max_sent_lead} then ignored = 1 end
return 'S ' .. clock_text .. ' ' .. trimmed .. ' ' .. ignored .. ' ' .. table.concat(results, ' ')
"""
)
