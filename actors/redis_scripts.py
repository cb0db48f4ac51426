"""What the redis store does inside redis, where it is atomic: Lua scripts, each with the functions that they share.

Keys, after a prefix, in the manner of pomelo's status and global channel plugins:

    known               set of every frontend that has told something
    alive:<frontend>    "<generation> <batch>", its generation and the last batch of facts in it; expires unless it is
                        refreshed: without it nothing of that frontend counts
    online:<uid>        hash of frontend to "<kind> <since when>" (pomelo: a set of frontends); the kind is 1 where
                        sessions are single, 2 where these are to be ended, else 0
    channel:<channel>:<frontend>   hash of uid to metadata, the members there (pomelo: a set of uids)
    frontends:<channel> set of the frontends with members
    places:<channel>    hash of uid to the number of frontends where it is a member
    watched:<channel>   set of the frontends that watch; only where there are some, changes are logged
    log:<channel>       stream of changes: uid, how it was, how it is ("-" for no member, "+" and its metadata)
    seq                 the number of the last change: microseconds of redis' clock, or one more than the one before
    lost:<frontend>     hash of uid to until when bound its sessions there are to be ended, until the frontend took it
    heard:<frontend>    the number of the last change that it was told, by its last look
    of:<frontend>:...   sets of what it told: uids, channels, watched; so that it can be taken back

A frontend writes only while its generation is the living one and redis has its last batch: a redis that lost some, one
that restarted from a file or a replica that took over, is found out by the next sign of life. Scripts reach keys that
are not declared, so this is for one redis server, not for Redis Cluster.
"""

__all__ = ["BEAT", "BEGIN", "COUNT", "LEAVE", "LOG_LIFE", "ROSTER", "SILENT", "TELL", "TTL", "WATCH", "WHERE"]

TTL = 10_000
"""Milliseconds for which a frontend's generation lives without a sign of it."""
LOG_LIFE = 180_000
"""Milliseconds for which changes are kept after the last one: longer than any ``presence_interval``."""

_SHARED = """
local P = ARGV[1]
local function present(c, u)
  local fs = redis.call('SMEMBERS', P..'frontends:'..c)
  table.sort(fs)
  for _, f in ipairs(fs) do
    local m = redis.call('HGET', P..'channel:'..c..':'..f, u)
    if m then return '+'..m end
  end
  return '-'
end
local function changing(c, u)
  return redis.call('EXISTS', P..'watched:'..c) == 1 and present(c, u)
end
-- Numbers of changes do not come again, so that a redis that went back to an earlier state does not give one twice.
local function moment()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local function changed(c, u, before)
  if not before then return end
  local now = present(c, u)
  if now ~= before then
    local log = P..'log:'..c
    local id = string.format('%.0f', math.max(tonumber(redis.call('GET', P..'seq') or '0') + 1, moment()))
    redis.call('SET', P..'seq', id)
    redis.call('XADD', log, 'MAXLEN', '~', 100000, id..'-0', 'u', u, 'b', before, 'n', now)
    redis.call('PEXPIRE', log, LOG_LIFE)
  end
end
local function join(f, c, u, m)
  local before = changing(c, u)
  if redis.call('HSET', P..'channel:'..c..':'..f, u, m) == 1 then
    redis.call('HINCRBY', P..'places:'..c, u, 1)
    redis.call('SADD', P..'frontends:'..c, f)
    redis.call('SADD', P..'of:'..f..':channels', c)
  end
  changed(c, u, before)
end
local function part(f, c, u)
  local before = changing(c, u)
  local key = P..'channel:'..c..':'..f
  if redis.call('HDEL', key, u) == 0 then return end
  if redis.call('HINCRBY', P..'places:'..c, u, -1) < 1 then redis.call('HDEL', P..'places:'..c, u) end
  if redis.call('EXISTS', key) == 0 then
    redis.call('SREM', P..'frontends:'..c, f)
    redis.call('SREM', P..'of:'..f..':channels', c)
  end
  changed(c, u, before)
end
local function unwatch(f, c)
  redis.call('SREM', P..'watched:'..c, f)
  redis.call('SREM', P..'of:'..f..':watched', c)
  if redis.call('EXISTS', P..'of:'..f..':watched') == 0 then redis.call('DEL', P..'heard:'..f) end
end
local function offline(f, u)
  redis.call('HDEL', P..'online:'..u, f)
  redis.call('SREM', P..'of:'..f..':uids', u)
end
local function forget(f)
  for _, c in ipairs(redis.call('SMEMBERS', P..'of:'..f..':channels')) do
    for _, u in ipairs(redis.call('HKEYS', P..'channel:'..c..':'..f)) do part(f, c, u) end
  end
  for _, c in ipairs(redis.call('SMEMBERS', P..'of:'..f..':watched')) do unwatch(f, c) end
  for _, u in ipairs(redis.call('SMEMBERS', P..'of:'..f..':uids')) do offline(f, u) end
  redis.call('DEL', P..'alive:'..f, P..'lost:'..f, P..'heard:'..f)
  redis.call('SREM', P..'known', f)
end
-- Add the sessions to be ended at a frontend, which is told of them now, to a list of frontend, uid and until when.
local function take_lost(f, losers)
  local lost = redis.call('HGETALL', P..'lost:'..f)
  for i = 1, #lost, 2 do
    table.insert(losers, f)
    table.insert(losers, lost[i])
    table.insert(losers, lost[i + 1])
  end
  redis.call('DEL', P..'lost:'..f)
  return losers
end
local lives = {}
local function alive(f)
  if lives[f] == nil then lives[f] = redis.call('EXISTS', P..'alive:'..f) == 1 end
  return lives[f]
end
local function clean(c)
  for _, f in ipairs(redis.call('SMEMBERS', P..'frontends:'..c)) do
    if not alive(f) then forget(f) end
  end
end
local function roster(c)
  local found = {}
  for _, f in ipairs(redis.call('SMEMBERS', P..'frontends:'..c)) do
    table.insert(found, {f, redis.call('HGETALL', P..'channel:'..c..':'..f)})
  end
  return found
end
""".replace("LOG_LIFE", str(LOG_LIFE))

# frontend, generation, time to live: begin a generation with nothing, unless a later life of the frontend has (nil);
# returns whose sessions the generation before was still to end
BEGIN = (
    _SHARED
    + """
local f, generation = ARGV[2], ARGV[3]
local now = redis.call('GET', P..'alive:'..f)
if now and tonumber(string.match(now, '^%d+')) > tonumber(generation) then return false end
local losers = take_lost(f, {})
for _, other in ipairs(redis.call('SMEMBERS', P..'known')) do
  if other == f or not alive(other) then forget(other) end
end
redis.call('SADD', P..'known', f)
redis.call('SET', P..'alive:'..f, generation..' 0', 'PX', ARGV[4])
return losers
"""
)

# frontend, sign (its generation and last batch), time to live: refresh it; returns whose sessions are to be ended, nil
# when that is not what is here
BEAT = (
    _SHARED
    + """
if redis.call('GET', P..'alive:'..ARGV[2]) ~= ARGV[3] then return false end
redis.call('PEXPIRE', P..'alive:'..ARGV[2], ARGV[4])
return take_lost(ARGV[2], {})
"""
)

# frontend, generation: take back all. The last batch of a frontend that stops may not have come, or not be known here
LEAVE = (
    _SHARED
    + """
local now = redis.call('GET', P..'alive:'..ARGV[2])
if not now or string.match(now, '^%d+') ~= ARGV[3] then return 0 end
forget(ARGV[2])
return 1
"""
)

# frontend, milliseconds: forget it where it gave no sign for so long; 1 when there is no such frontend any more
SILENT = (
    _SHARED
    + """
local left = redis.call('PTTL', P..'alive:'..ARGV[2])
if left > tonumber(ARGV[4]) - tonumber(ARGV[3]) then return 0 end
forget(ARGV[2])
return 1
"""
)

# frontend, sign, single, live, facts, next sign, time to live: take them in; returns whose sessions that ends, nil when
# out of date
TELL = (
    _SHARED
    + """
local f, single, live = ARGV[2], ARGV[4], ARGV[5] == '1'
if redis.call('GET', P..'alive:'..f) ~= ARGV[3] then return false end
redis.call('SET', P..'alive:'..f, ARGV[7], 'PX', ARGV[8])
local losers = take_lost(f, {})
local function lose(frontend, uid, since)
  redis.call('HSET', P..'online:'..uid, frontend, '2 '..since)
  -- Whoever is told by this script may fail to tell it: the frontend finds it here by its next sign of life.
  if frontend ~= f then redis.call('HSET', P..'lost:'..frontend, uid, since) end
  table.insert(losers, frontend)
  table.insert(losers, uid)
  table.insert(losers, since)
end
local function online(u, since)
  redis.call('HSET', P..'online:'..u, f, single..' '..since)
  redis.call('SADD', P..'of:'..f..':uids', u)
  if single ~= '1' then return end
  local places = redis.call('HGETALL', P..'online:'..u)
  for i = 1, #places, 2 do
    local other, state, theirs = places[i], string.match(places[i + 1], '^(%d) (.*)')
    if other ~= f and state ~= '0' and alive(other) then
      local mine, its = tonumber(since), tonumber(theirs)
      -- A login as it happens comes after all before it; where the order was not seen the clocks say it. One that has
      -- lost once cannot win: both would end, where clocks contradict what was seen.
      if live or state == '2' or its < mine or (its == mine and other < f) then lose(other, u, theirs)
      else lose(f, u, since) end
    end
  end
end
for _, fact in ipairs(cmsgpack.unpack(ARGV[6])) do
  local kind, key = fact[1], fact[2]
  if kind == 1 then online(key, fact[3])
  elseif kind == 2 then offline(f, key)
  elseif kind == 3 then join(f, key, fact[3], fact[4])
  elseif kind == 4 then part(f, key, fact[3])
  elseif kind == 5 then
    redis.call('SADD', P..'watched:'..key, f)
    redis.call('SADD', P..'of:'..f..':watched', key)
  elseif kind == 6 then unwatch(f, key)
  end
end
return losers
"""
)

# uids: return for each its frontends
WHERE = (
    _SHARED
    + """
local found = {}
for _, u in ipairs(cmsgpack.unpack(ARGV[2])) do
  local places = {}
  for _, f in ipairs(redis.call('HKEYS', P..'online:'..u)) do
    if alive(f) then table.insert(places, f) end
  end
  table.insert(found, places)
end
return found
"""
)

# channel: return its members, by frontend
ROSTER = (
    _SHARED
    + """
clean(ARGV[2])
return roster(ARGV[2])
"""
)

# channel: return how many uids are members
COUNT = (
    _SHARED
    + """
clean(ARGV[2])
return redis.call('HLEN', P..'places:'..ARGV[2])
"""
)

# frontend, the last change by its last look or nothing, [channel, last change heard or -1, whether everybody is
# wanted]...: return the last change, and [count, changes, members]...; nil in place of these where redis does not have
# that last look: it went back to an earlier state, and what was told since may not be so
WATCH = (
    _SHARED
    + """
local f = ARGV[2]
local channels = cmsgpack.unpack(ARGV[4])
for _, asked in ipairs(channels) do clean(asked[1]) end
local last = redis.call('GET', P..'seq') or '0'
local same = (redis.call('GET', P..'heard:'..f) or '') == ARGV[3]
if alive(f) then redis.call('SET', P..'heard:'..f, last) end
if not same then return {last, false} end
local found = {}
for _, asked in ipairs(channels) do
  local c, since = asked[1], asked[2]
  local changes, members = {}, false
  if since >= 0 then
    for _, entry in ipairs(redis.call('XRANGE', P..'log:'..c, string.format('(%.0f-0', since), '+')) do
      table.insert(changes, entry[2])
    end
  end
  if asked[3] then members = roster(c) end
  table.insert(found, {redis.call('HLEN', P..'places:'..c), changes, members})
end
return {last, found}
"""
)
