"""
What may be turned, and the one grammar that turns it: ``key=value`` words separated by spaces.

The fields of `Knobs` are the table: name, default, how a value is read, what it does. The parser, the error
sentences and the page all read it, so a knob is one line here and one use elsewhere.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar
from urllib.parse import unquote

T = TypeVar("T")

FAULTS = {
    "400": "the prompt trips the content filter (code content_filter, with innererror.content_filter_result)",
    "401": "the key is wrong",
    "401-audience": "the token was made for another audience",
    "403": "the resource's firewall refuses",
    "404": "Response with id '…' not found.",
    "404-deployment": "DeploymentNotFound",
    "404-resource": "Resource not found",
    "408": "the service gave up waiting",
    "409": "another operation is in the way",
    "429": "the rate limit is exceeded",
    "500": "the service had an error",
    "503": "the service is overloaded",
    "html-502": "a gateway answers 502 with an HTML page",
    "redirect": "307 to another origin",
    "reset": "the connection is reset and nothing was performed",
    "html": "performed; answers 200 with an HTML page",
    "empty": "performed; answers 200 with an empty body",
    "truncated": "performed; answers JSON cut in the middle, with the Content-Length of the cut text",
    "short": "performed; promises a longer body than it sends, then closes",
    "null": "performed; answers null",
    "list": "performed; answers []",
    "object": "performed; answers {}",
    "reset-after": "performed; then the connection is reset without an answer",
    "hang": "performed; never answers, and holds the connection until the client leaves",
    "slow": "performed; the answer dribbles out a byte at a time over `slow` seconds",
}
"""Every fault by name. The first group is refused before anything happens (unless `performed=1`)."""

OUTCOMES = ("completed", "failed", "incomplete", "cancelled", "never")
VERBS = ("create", "look", "cancel", "delete")
_SERVER_ONLY = frozenset({"rpm", "tpm"})
_LONGEST = 1e9  # seconds: thirty years, and still a date that an HTTP header can say
_IN_PROMPT = re.compile(r"\[emulator\s+([^\[\]]+)\]")


class KnobError(ValueError):
    """Says which knob or value was not understood, and what is."""


def _seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or not 0 <= value <= _LONGEST:
        raise ValueError
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError
    return int(text)


def _positive(text: str) -> int:
    value = _count(text)
    if value == 0:
        raise ValueError
    return value


def _flag(text: str) -> bool:
    return {"0": False, "1": True}[text]


def _word(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        raise ValueError
    return text


def _one_of(choices: Iterable[str]) -> Callable[[str], str]:
    known = tuple(choices)

    def read(text: str) -> str:
        if text not in known:
            raise ValueError
        return text

    read.__doc__ = "one of " + ", ".join(known)
    return read


def _cancel_status(text: str) -> int:
    return {"200": 200, "400": 400, "409": 409}[text]


_WANTS: dict[Callable[[str], Any], str] = {
    _seconds: "a number of seconds, 0 or more",
    _count: "a whole number, 0 or more",
    _positive: "a whole number, 1 or more",
    _flag: "0 or 1",
    _word: "one word of letters, digits, '_', '.' and '-'",
    unquote: "URL-quoted text",
    _cancel_status: "200, 400 or 409",
}


def _knob(default: T, read: Callable[[str], Any], says: str) -> T:
    wants = _WANTS.get(read) or read.__doc__
    return field(default=default, metadata={"read": read, "wants": wants, "says": says})


def _switch(says: str) -> bool:
    return _knob(default=False, read=_flag, says=says)


@dataclass(frozen=True, slots=True)
class Knobs:
    """Holds one complete setting of every knob; times are in seconds."""

    # fmt: off
    seconds: float = _knob(2.0, _seconds, "total time from create to the terminal status")
    queued: float | None = _knob(None, _seconds, "time spent queued; a tenth of `seconds` unless given")
    latency: float = _knob(0.0, _seconds, "waited before every answer, after the request was performed")
    outcome: str = _knob("completed", _one_of(OUTCOMES), "the terminal status; `never` stays in_progress")
    code: str = _knob("server_error", _word, "error.code of a failed response")
    reason: str = _knob("max_output_tokens", _word, "incomplete_details.reason; partial text is kept")
    text: str | None = _knob(None, unquote, "the answer's text, after the mark [emulator]; empty stays empty")
    skip_progress: bool = _switch("1: never seen in_progress, queued until terminal")
    fault: str | None = _knob(None, _one_of(FAULTS), "what goes wrong; see the faults")
    on: str = _knob("create", _one_of((*VERBS, "any")), "the verb at which the fault fires")
    times: int = _knob(1, _count, "how many times the fault fires; 0 is always")
    after: int = _knob(0, _count, "so many matching requests pass before the fault fires")
    performed: bool = _switch("1: a refusing fault performs the request all the same")
    slow: float = _knob(2.0, _seconds, "how long the answer of fault=slow takes")
    retry_after: float | None = _knob(None, _seconds, "sent as retry-after with fault 429 or 503")
    retry_after_ms: int | None = _knob(None, _count, "sent as retry-after-ms with fault 429 or 503")
    retry_after_date: float | None = _knob(None, _seconds, "sent as an HTTP date so many seconds from now")
    rpm: int | None = _knob(None, _positive, "creates per sliding minute before 429; server level only")
    tpm: int | None = _knob(None, _positive, "tokens set aside per sliding minute before 429; server level only")
    lost_after: int | None = _knob(None, _count, "after so many looks the response answers 404 for ever")
    missing_first: int = _knob(0, _count, "the first so many looks answer 404 (read-after-write)")
    late_completion: float | None = _knob(None, _seconds, "so long after a cancel it reads completed")
    cancel_status: int = _knob(200, _cancel_status, "400 or 409: a cancel is refused and the job runs on")
    cut: int | None = _knob(None, _count, "a stream ends silently after so many events")
    stream_max_age: float = _knob(300.0, _seconds, "the stream of an older response answers 400")
    nulls: bool = _switch("1: created_at and output are null while queued")
    word: str | None = _knob(None, _word, "an unknown status word, reported while in progress")
    backwards: bool = _switch("1: the look after the first in_progress says queued again")
    poll_after_ms: int | None = _knob(None, _count, "sent as openai-poll-after-ms with looks")
    # fmt: on

    @property
    def queued_seconds(self) -> float:
        """Is the time spent queued, never longer than the whole job."""
        return min(self.seconds / 10 if self.queued is None else self.queued, self.seconds)

    def overlay(self, settings: Mapping[str, Any]) -> "Knobs":
        """Returns these knobs with `settings` (from `parse`) laid over them."""
        return replace(self, **settings) if settings else self


_TABLE = {knob.name: knob for knob in fields(Knobs)}


def parse(text: str) -> dict[str, Any]:
    """
    Reads one knob string into settings by name; a later word wins.

    Raises:
        KnobError: A word is no ``key=value``, names no knob, or has a value that the knob does not take.
    """
    return dict(_setting(word) for word in text.split())


def _setting(word: str) -> tuple[str, Any]:
    name, equals, value = word.partition("=")
    if not equals:
        raise KnobError(f"{word!r} is not a knob: write key=value words separated by spaces")
    if name not in _TABLE:
        raise KnobError(f"unknown knob {name!r}: the knobs are {', '.join(_TABLE)}")
    about = _TABLE[name].metadata
    try:
        return name, about["read"](value)
    except (ValueError, KeyError, OverflowError):
        raise KnobError(f"knob {name!r} takes {about['wants']}, not {value!r}") from None


def parse_job(metadata_knobs: str, prompt: str) -> dict[str, Any]:
    """
    Reads what one create asks for: its metadata key, then every ``[emulator …]`` in its prompt.

    Raises:
        KnobError: As `parse`, and for a knob that only a server has.
    """
    settings = parse(" ".join([metadata_knobs, *_IN_PROMPT.findall(prompt)]))
    if lost := _SERVER_ONLY.intersection(settings):
        raise KnobError(f"knob {min(lost)!r} is set on the server, not on one job")
    return settings


def describe() -> list[tuple[str, str, str, str]]:
    """Returns name, default, what is taken and what it does, of every knob in order."""
    return [
        (
            name,
            "" if knob.default is None else str(knob.default),
            knob.metadata["wants"],
            knob.metadata["says"],
        )
        for name, knob in _TABLE.items()
    ]
