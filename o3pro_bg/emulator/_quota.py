"""The sliding minute behind 429 and the x-ratelimit headers."""

from collections import deque

_MINUTE = 60.0


class Quota:
    """Counts the creates of the last minute and the tokens that they reserved."""

    def __init__(self) -> None:
        self._spent: deque[tuple[float, int]] = deque()
        self._tokens = 0

    def spend(self, now: float, tokens: int) -> None:
        """Counts one create and the tokens that it reserves; one that is refused as invalid counts too."""
        self._spent.append((now, tokens))
        self._tokens += tokens

    def wait(self, now: float, tokens: int, rpm: int | None, tpm: int | None) -> float:
        """Returns the seconds until a create of so many tokens fits under both limits, 0 where it fits now."""
        self._expire(now)
        waits = [0.0]
        if rpm is not None and len(self._spent) >= rpm:
            waits.append(self._spent[-rpm][0] + _MINUTE - now)
        if tpm is not None and tokens > tpm:
            waits.append(_MINUTE)  # now as then
        elif tpm is not None:
            excess = self._tokens + tokens - tpm
            for at, freed in self._spent:
                if excess > 0:
                    waits.append(at + _MINUTE - now)
                excess -= freed
        return max(waits)

    def headers(self, now: float, rpm: int | None, tpm: int | None) -> dict[str, str]:
        """Returns x-ratelimit headers for the limits that there are."""
        self._expire(now)
        limits = (("requests", rpm, len(self._spent)), ("tokens", tpm, self._tokens))
        return {
            f"x-ratelimit-{word}-{what}": str(figure)
            for what, limit, spent in limits
            if limit is not None
            for word, figure in (("limit", limit), ("remaining", max(0, limit - spent)))
        }

    def _expire(self, now: float) -> None:
        while self._spent and self._spent[0][0] <= now - _MINUTE:
            self._tokens -= self._spent.popleft()[1]
