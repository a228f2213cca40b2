"""The sliding minute behind 429 and the x-ratelimit headers."""

from collections import deque

_MINUTE = 60.0
_TIER_1_REQUESTS = 160
_TIER_1_TOKENS = 1_600_000


class Quota:
    """Counts the creates of the last minute and the tokens that they reserved."""

    def __init__(self) -> None:
        self._spent: deque[tuple[float, int]] = deque()
        self._tokens = 0

    def spend(self, now: float, tokens: int) -> None:
        """Counts one create and the tokens that it reserves; one that is refused as invalid counts too."""
        self._spent.append((now, tokens))
        self._tokens += tokens

    def wait(self, now: float, limit: int | None) -> float:
        """Returns the seconds until one more create fits under `limit` a minute, 0 where it fits now."""
        self._expire(now)
        if limit is None or len(self._spent) < limit:
            return 0.0
        return self._spent[-limit][0] + _MINUTE - now

    def headers(self, now: float, limit: int | None) -> dict[str, str]:
        """Returns x-ratelimit headers; without a limit they tell of the first tier and refuse nothing."""
        self._expire(now)
        allowed = _TIER_1_REQUESTS if limit is None else limit
        return {
            "x-ratelimit-limit-requests": str(allowed),
            "x-ratelimit-remaining-requests": str(max(0, allowed - len(self._spent))),
            "x-ratelimit-limit-tokens": str(_TIER_1_TOKENS),
            "x-ratelimit-remaining-tokens": str(max(0, _TIER_1_TOKENS - self._tokens)),
        }

    def _expire(self, now: float) -> None:
        while self._spent and self._spent[0][0] <= now - _MINUTE:
            self._tokens -= self._spent.popleft()[1]
