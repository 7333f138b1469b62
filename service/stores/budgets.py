"""How much of a budget is taken, in Redis: a counter of what is certain, and reservations that run out."""

import datetime as dt

from service.catalog.policies import DECISIONS, Budget
from service.stores.resp import encode

DAY_S = 86_400
KEPT_S = 400 * DAY_S  # a daily budget is of no use after its day; a total one is kept as long as contacts are

# KEYS: counter, reservations. ARGV: at_most, now, until (of the reservation; 0: certain at once), member, seconds to keep.
CLAIM = """
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[2])
local taken = tonumber(redis.call('GET', KEYS[1]) or '0') + redis.call('ZCARD', KEYS[2])
if taken >= tonumber(ARGV[1]) then return 0 end
if ARGV[3] == '0' then redis.call('INCR', KEYS[1]) else redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4]) end
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('EXPIRE', KEYS[2], ARGV[5])
return 1
"""
# KEYS as above. ARGV: member, certain (1: it was counted at once).
RELEASE = """
if ARGV[2] == '1' then redis.call('DECR', KEYS[1]) else redis.call('ZREM', KEYS[2], ARGV[1]) end
return 1
"""
# KEYS as above, and the same of the day before. ARGV: member, seconds to keep, moment of the impression. It counts once, also if
# its reservation ran out before it came; and on the day of which it was reserved, lest the next one have more than its shares.
CONFIRM = """
local until_then = redis.call('ZSCORE', KEYS[4], ARGV[1])
local counter = KEYS[1]
if until_then and tonumber(until_then) > tonumber(ARGV[3]) then counter = KEYS[3] end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('INCR', counter)
redis.call('EXPIRE', counter, ARGV[2])
return 1
"""


def day_of(at: float) -> str:
    """The UTC day of a moment."""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y%m%d")


def budget_keys(budget: Budget, at: float) -> tuple[str, str]:
    """The counter and the reservations of a budget; a daily one has its own every UTC day."""
    period = day_of(at) if budget.per_day else "total"
    return f"nb:budget:{{{budget.name}}}:{period}", f"nb:budget:{{{budget.name}}}:{period}:reserved"


def read_commands(budget: Budget, now: float) -> bytes:
    """Two commands, whose replies `is_exhausted` understands."""
    counter, reserved = budget_keys(budget, now)
    return encode("GET", counter) + encode("ZCOUNT", reserved, f"({now!r}", "+inf")


def is_exhausted(budget: Budget, counted: bytes | None, reserved: int) -> bool:
    """Whether nothing is left, from the replies to `read_commands`."""
    return int(counted or 0) + reserved >= budget.at_most


def claim_command(budget: Budget, decision_id: str, now: float, reservation: float) -> bytes:
    """One command; it answers 1 where the share was taken."""
    until = "0" if budget.count == DECISIONS else repr(now + reservation)
    return _script(CLAIM, budget, now, str(budget.at_most), repr(now), until, decision_id, str(KEPT_S))


def release_command(budget: Budget, decision_id: str, now: float) -> bytes:
    """One command that gives a share back."""
    return _script(RELEASE, budget, now, decision_id, "1" if budget.count == DECISIONS else "0")


def confirm_command(budget: Budget, decision_id: str, at: float) -> bytes:
    """One command that turns a reservation into a certainty."""
    keys = *budget_keys(budget, at), *budget_keys(budget, at - DAY_S)
    return encode("EVAL", CONFIRM, str(len(keys)), *keys, decision_id, str(KEPT_S), repr(at))


def _script(script: str, budget: Budget, at: float, *arguments: str) -> bytes:
    return encode("EVAL", script, "2", *budget_keys(budget, at), *arguments)
