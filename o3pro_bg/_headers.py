"""What the headers of an answer say: when to ask again, and what the service allows."""

from __future__ import annotations

import math
import re
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Protocol

from o3pro_bg._budget import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)", re.ASCII)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST: Final = 40  # characters of a span of time
_A_DAY: Final = 86_400.0  # seconds; nothing is believed that asks for more


class Answer(Protocol):
    """What came back over HTTP, whoever brought it; the names of its headers are of either case."""

    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> bytes: ...


def request_id_of(answer: Answer) -> str | None:
    """Answer the id under which the service's people find the request, or None."""
    return answer.headers.get("apim-request-id") or answer.headers.get("x-request-id")


def poll_after_of(answer: Answer) -> float | None:
    """Answer the seconds after which the service wants to be asked again, or None."""
    hint = _number(answer, "openai-poll-after-ms")
    return hint / 1000 if hint else retry_after_of(answer) or None


def retry_after_of(answer: Answer) -> float | None:
    """
    Answer the seconds after which a request may be tried again: told in milliseconds, in seconds, or as a date.

    They are a day at the most: who asks for more is asked again then.
    """
    milliseconds, seconds = _number(answer, "retry-after-ms"), _number(answer, "retry-after")
    if milliseconds is not None:
        return min(milliseconds / 1000, _A_DAY)
    if seconds is not None:
        return min(seconds, _A_DAY)
    try:
        seconds = parsedate_to_datetime(answer.headers["retry-after"]).timestamp() - time.time()
    except (KeyError, ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), _A_DAY)


def reset_after_of(answer: Answer) -> float | None:
    """
    Answer the seconds until what is used up is there again, or None.

    Azure tells them in place of a `retry-after` at times, as `55`; OpenAI as `1m12.5s`.
    """
    spans = []
    for what in ("requests", "tokens"):
        seconds = _span(answer, f"x-ratelimit-reset-{what}")
        if seconds is not None and seconds <= _A_DAY:  # more is a moment, as some gateways send it, and no span
            spans.append((_number(answer, f"x-ratelimit-remaining-{what}") == 0, seconds))
    return max(spans)[1] or None if spans else None


def limits_of(answer: Answer) -> Limits:
    """
    Answer what the service allows.

    A limit below 1 is none: the service sends -1 and 0 where it has nothing to tell, and what is left means as little.
    """
    return Limits(*_limit(answer, "requests"), *_limit(answer, "tokens"))


def _limit(answer: Answer, what: str) -> tuple[float | None, float | None]:
    limit, left = (_number(answer, f"x-ratelimit-{word}-{what}") for word in ("limit", "remaining"))
    if limit is None and f"x-ratelimit-limit-{what}" not in answer.headers:
        return None, left
    return (None, None) if limit is None or limit < 1 else (limit, left)


def _number(answer: Answer, name: str) -> float | None:
    """Answer the number of 0 or more that a header holds, or None."""
    try:
        number = float(answer.headers[name])
    except (KeyError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _span(answer: Answer, name: str) -> float | None:
    if (number := _number(answer, name)) is not None:
        return number
    text = answer.headers.get(name, "")[:_LONGEST]
    if not re.fullmatch(f"(?:{_SPAN.pattern})+", text, re.ASCII):
        return None
    return sum(float(count) * _UNITS[unit] for count, unit in _SPAN.findall(text))
