"""
When the next create of a deployment may go, learnt from what the service says and refuses.

Pure: time and luck come in as arguments. A service measures its rates as it likes: over a sliding minute, over one or
ten seconds (Azure's documentation names these), with a bucket that fills. What all of them let through is an even
stream that leaves, in no minute, more than the minute's allowance; so that is what is sent.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from o3pro_bg._pacing import backoff

if TYPE_CHECKING:
    from o3pro_bg._records import JobRequest

_MINUTE: Final = 60.0  # seconds for which an allowance counts what it let through
_INSTANT: Final = 0.001  # seconds; what is shorter is no wait
_SLACK: Final = 1.0  # seconds by which the even stream may run ahead, to make up for what came late
_AT_FIRST: Final = 4  # creates on their way at once in the beginning; each that is accepted makes room for one more
_UNTOLD: Final = 16  # creates on their way at once, at the most, where the service does not tell its limits
_GUESS: Final = 30.0  # creates a minute, at the least, after the first 429
_CONFIRMED: Final = 0.8  # the part of a learnt rate at which a further 429 confirms it
_STEP: Final = 0.02  # the part by which a confirmed rate grows in a minute without a 429, and doubles in the next
_MOST_TOKENS: Final = 10**9  # of an answer; a bound above it is a slip, and the service says so
_BYTES_PER_TOKEN: Final = 3  # of English four, of Japanese three: what is counted is rather too much


class Limits(NamedTuple):
    """What the service allows this deployment in a minute, and has left of it; None where it does not say."""

    requests: float | None = None
    requests_left: float | None = None
    tokens: float | None = None
    tokens_left: float | None = None


@dataclass(slots=True)
class Reservation:
    """
    Leave for one create.

    Attributes:
        at: When it was given.
        tokens: The tokens that the service will count for it.
        has_left: Whether the create has left the house.
        is_open: Whether it is not known yet what became of it.
        counted_at: From when on it counts as let through, or None.
    """

    at: float
    tokens: int
    has_left: bool = False
    is_open: bool = True
    counted_at: float | None = None


def tokens_of(request: JobRequest) -> int:
    """
    Answer how many tokens the service sets aside for this request: those of the question, and all it may answer.

    An output that is not bounded by `max_output_tokens` counts nothing; what the service makes of it, it tells.
    """
    instructions = request.options.get("instructions")
    text = request.question + (instructions if isinstance(instructions, str) else "")
    return len(text.encode(errors="replace")) // _BYTES_PER_TOKEN + most_output_of(request)


def most_output_of(request: JobRequest) -> int:
    """Answer how many tokens the answer may have; 0 is without a bound."""
    most = request.options.get("max_output_tokens")
    return min(max(most, 0), _MOST_TOKENS) if isinstance(most, int) else 0


class _Allowance:
    """Something of which a minute allows so much; what is let through counts for a minute from its answer on."""

    def __init__(self) -> None:
        self.limit = math.inf
        self._on_its_way = 0
        self._counted: deque[tuple[float, int]] = deque()
        self._sum = 0
        self._left = math.inf  # what the service said last, less what was taken since
        self._refill = 0.0  # how much more it is each second
        self._heard_at = 0.0

    def wait(self, now: float, amount: int, most: float = math.inf) -> float:
        """
        Answer the seconds until so much more fits, a minute at the most: 0 is now.

        Without end is after the next answer. What is too much for a whole minute goes alone.
        """
        self.expire(now)
        if not (self._on_its_way or self._counted):
            return 0.0
        most = min(self.limit, most)
        lacks = min(amount, most) - self._left - self._refill * (now - self._heard_at)
        pause = min(lacks / self._refill, _MINUTE) if lacks > 0 else 0.0
        if self._on_its_way + self._sum + amount > most:
            pause = max(pause, self._counted[0][0] + _MINUTE - now if self._counted else math.inf)
        return pause

    def take(self, amount: int) -> None:
        """Set so much aside."""
        self._on_its_way += amount
        self._left -= amount

    def give_back(self, amount: int) -> None:
        """Set so much aside no longer."""
        self._on_its_way -= amount

    def count(self, now: float, amount: int) -> None:
        """Count so much as let through."""
        self._counted.append((now, amount))
        self._sum += amount

    def uncount(self, at: float, amount: int) -> None:
        """Count what was let through then no longer."""
        if (at, amount) in self._counted:
            self._counted.remove((at, amount))
            self._sum -= amount

    def hear(self, now: float, limit: float | None, left: float | None) -> None:
        """Note what the service says; what others use of it is theirs, until it is there again, bit by bit."""
        if limit is not None:
            self.limit = limit
        if left is not None:
            self._left, self._heard_at = left, now
            a_minute = self._sum + left if self.limit == math.inf else self.limit
            self._refill = max(a_minute, 1.0) / _MINUTE

    def expire(self, now: float) -> int:
        """Count no longer what is older than a minute; answer how many are left."""
        while self._counted and self._counted[0][0] <= now - _MINUTE:
            self._sum -= self._counted.popleft()[1]
        return len(self._counted)

    def since(self) -> float:
        """Answer when the oldest of those that count was let through."""
        return self._counted[0][0]


class RateBudget:
    """
    When the next create of a deployment may go.

    The service's headers tell what a minute allows; without them it is learnt from a 429 what had been too much. A 429
    closes the gate for all creates for as long as the service asked, or for a growing time where it did not say (or
    said 0), or where it refuses again after that. Afterwards they leave one by one, at a rate that was cut down to what
    the service let through until then, or by half where that is more. Each minute that used the rate without a 429
    raises it: doubles it, or raises a rate that a second 429 has confirmed by a little, and then by more and more.

    Args:
        most: The most creates on their way at once.
    """

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._at_once = min(_AT_FIRST, most)
        self._on_their_way = 0
        self._requests = _Allowance()
        self._tokens = _Allowance()
        self._learnt = math.inf  # creates a minute, as 429s have taught
        self._confirmed = math.inf  # what it was after the last 429
        self._step = 1.0
        self._stepped_at = 0.0
        self._next = -math.inf  # when the even stream has its next place
        self._opens_at = -math.inf
        self._refused_at = -math.inf
        self._streak = 0

    @property
    def is_refused(self) -> bool:
        """Tell whether no create was accepted since the last 429."""
        return self._streak > 0

    @property
    def _rate(self) -> float:
        return min(self._learnt, self._requests.limit)

    def closed(self, now: float) -> float:
        """Answer the seconds for which a 429 keeps all creates back."""
        return max(self._opens_at - now, 0.0)

    def wait(self, now: float, tokens: int = 0) -> float:
        """
        Answer the seconds until a create that counts so many tokens may go.

        0 is now, and without end is once the service has answered one of those on their way.
        """
        closed = self.closed(now)
        if closed <= _INSTANT and self._on_their_way >= self._at_once:
            return math.inf
        allowed = max(self._requests.wait(now, 1, self._rate), self._tokens.wait(now, tokens))
        pause = max(closed, allowed, self._next - _SLACK - now)
        return pause if pause > _INSTANT else 0.0

    def take(self, now: float, tokens: int = 0) -> Reservation:
        """Let a create go."""
        self._on_their_way += 1
        self._requests.take(1)
        self._tokens.take(tokens)
        self._next = max(self._next, now) + _MINUTE / self._rate
        return Reservation(now, tokens)

    def accepted(self, reservation: Reservation, now: float, limits: Limits | None = None) -> None:
        """Note that the service took a create."""
        self.spent(reservation, now)
        self._streak = 0
        self._hear(now, limits)
        self._grow(now)
        most = min(self._most, _UNTOLD) if self._requests.limit == math.inf else self._most
        self._at_once = min(self._at_once + 1, most)

    def spent(self, reservation: Reservation, now: float) -> None:
        """Note that a create counts for the service, or may."""
        if self._close(reservation):
            reservation.counted_at = now
            self._requests.count(now, 1)
            self._tokens.count(now, reservation.tokens)

    def returned(self, reservation: Reservation) -> None:
        """Note that a create never reached the service, or was refused by it."""
        if not self._close(reservation) and reservation.counted_at is not None:
            self._requests.uncount(reservation.counted_at, 1)
            self._tokens.uncount(reservation.counted_at, reservation.tokens)

    def throttled(
        self,
        reservation: Reservation,
        now: float,
        luck: float,
        retry_after: float | None,
        limits: Limits | None = None,
    ) -> bool:
        """Note a 429, and tell whether it is the first one of those that arrive together: only that counts."""
        self.returned(reservation)
        self._hear(now, limits)
        is_first = reservation.at >= self._refused_at
        self._streak += is_first
        pause = retry_after or 0.0
        if pause == 0.0 or self._streak > 1:  # a time that it named once, and does not keep, is no measure
            pause = max(pause, backoff(max(self._streak, 1), luck))
        self._opens_at = max(self._opens_at, now + pause)
        if is_first:
            self._refused_at = self._opens_at
            self._shrink(now, pause)
        # The stream begins anew with one create.
        self._at_once = 1
        self._next = self._opens_at + _SLACK
        return is_first

    def _close(self, reservation: Reservation) -> bool:
        """Set nothing aside any more for this create; tell whether something was."""
        if not reservation.is_open:
            return False
        reservation.is_open = False
        self._on_their_way -= 1
        self._requests.give_back(1)
        self._tokens.give_back(reservation.tokens)
        return True

    def _hear(self, now: float, limits: Limits | None) -> None:
        if limits is not None:
            self._requests.hear(now, limits.requests, limits.requests_left)
            self._tokens.hear(now, limits.tokens, limits.tokens_left)

    def _grow(self, now: float) -> None:
        """Try a higher rate after each minute without a 429 that used it."""
        if self._learnt < self._requests.limit and now - self._stepped_at >= _MINUTE:
            self._stepped_at = now
            if self._requests.expire(now) >= self._learnt / 2:
                self._learnt *= 1 + self._step
                self._step = min(2 * self._step, 1.0)

    def _shrink(self, now: float, pause: float) -> None:
        """Cut the rate down to what could have gone on for ever."""
        self._stepped_at = now
        least = max(self._rate / 2, 1.0)  # which is no bound yet where nothing is known
        if let_through := self._requests.expire(now):
            sustained = let_through * _MINUTE / min(now - self._requests.since() + pause, _MINUTE)
            least = max(sustained, _GUESS if least == math.inf else least)
        elif self._streak > 1:
            least = min(least, _GUESS)
        self._learnt = min(self._rate, least)
        self._step = _STEP if self._learnt >= _CONFIRMED * self._confirmed else 1.0
        self._confirmed = self._learnt
