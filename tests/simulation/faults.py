"""What may happen to a request on its way, and to a response in its life."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiohttp
import httpx2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random


class Answer(NamedTuple):
    """What comes back over HTTP."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


class Fault(NamedTuple):
    """
    Something that happens to one exchange.

    Attributes:
        verbs: Which exchanges it may meet: create, look, cancel, delete, by their initials.
        arrives: Whether the service does what it was asked for; None is a matter of luck.
        outcome: What the client gets, made of the good answer; None is nothing, until it gives up.
        is_unclear: Whether the client cannot know whether the service did what it was asked for.
    """

    name: str
    verbs: str
    arrives: bool | None
    outcome: Callable[[Random, Answer], Answer | Exception] | None
    is_unclear: bool = False


def raised(*kinds: Callable[[], Exception]) -> Callable[[Random, Answer], Exception]:
    """Answer what raises one of these."""
    return lambda luck, answer: luck.choice(kinds)()


def refused(status: int, code: str, message: str, **headers: str) -> Callable[[Random, Answer], Answer]:
    """Answer what refuses."""
    content = json.dumps({"error": {"code": code, "message": message}}).encode()
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return lambda luck, answer: Answer(status, named, content)


def throttled(*choices: Mapping[str, str]) -> Callable[[Random, Answer], Answer]:
    """Answer what says 429, with one of these headers."""
    content = json.dumps({"error": {"code": "429", "message": "Too many requests."}}).encode()
    return lambda luck, answer: Answer(429, luck.choice(choices), content)


def plain(status: int, *contents: bytes, kind: str = "text/html") -> Callable[[Random, Answer], Answer]:
    """Answer what is no answer of the service, but of something on the way."""
    return lambda luck, answer: Answer(status, {"content-type": kind}, luck.choice(contents))


def _cut(luck: Random, answer: Answer) -> Answer:
    return answer._replace(content=answer.content[: luck.randrange(len(answer.content) or 1)])


def _dated(luck: Random, answer: Answer) -> Answer:
    when = formatdate(time.time() + luck.choice((-5, 2, 40, 130)), usegmt=True)
    return Answer(429, {"retry-after": when}, b"{}")


def _with(**facts: Any) -> Callable[[Random, Answer], Answer]:
    return lambda luck, answer: answer._replace(content=json.dumps({**json.loads(answer.content), **facts}).encode())


def _http(kind: type[httpx2.TransportError]) -> Callable[[], Exception]:
    return lambda: kind("simulated")


HTML: Final = b"<!DOCTYPE html><html><body>Bad gateway</body></html>"
LOST = (
    _http(httpx2.ReadError),
    _http(httpx2.RemoteProtocolError),
    aiohttp.ServerDisconnectedError,
    lambda: aiohttp.ClientOSError(104, "Connection reset by peer"),
)
FAULTS: Final = {
    fault.name: fault
    for fault in (
        Fault("not reached", "clxd", False, raised(_http(httpx2.ConnectError), _http(httpx2.ConnectTimeout))),
        Fault("reset before", "clxd", False, raised(*LOST), is_unclear=True),
        Fault("reset after", "clxd", True, raised(*LOST), is_unclear=True),
        Fault("hang before", "clxd", False, None, is_unclear=True),
        Fault("hang after", "clxd", True, None, is_unclear=True),
        Fault("own bug on the way", "clxd", None, raised(lambda: RuntimeError("hook")), is_unclear=True),
        Fault("429", "clxd", False, throttled({})),
        Fault("429 seconds", "clxd", False, throttled({"retry-after": "3"}, {"retry-after": "20"})),
        Fault("429 milliseconds", "clxd", False, throttled({"retry-after-ms": "1500", "retry-after": "9"})),
        Fault("429 date", "clxd", False, _dated),
        Fault("429 for long", "clxd", False, throttled({"retry-after": "120"}, {"retry-after": "333"})),
        Fault(
            "429 reset",
            "clxd",
            False,
            throttled(
                {"x-ratelimit-reset-requests": "55", "x-ratelimit-remaining-requests": "0"},
                {"x-ratelimit-reset-tokens": "1m12.5s", "x-ratelimit-limit-requests": "10"},
            ),
        ),
        Fault(
            "429 nonsense",
            "clxd",
            False,
            throttled({"retry-after": "soon"}, {"retry-after": "0"}, {"retry-after": "-1"}),
        ),
        Fault("408", "clxd", None, plain(408, b""), is_unclear=True),
        Fault("500", "clxd", None, refused(500, "server_error", "Sorry."), is_unclear=True),
        Fault("502", "clxd", None, plain(502, HTML), is_unclear=True),
        Fault("503", "clxd", None, refused(503, "", "Busy.", retry_after="7"), is_unclear=True),
        Fault("504", "clxd", None, plain(504, b""), is_unclear=True),
        Fault("HTML", "clxd", None, plain(200, HTML), is_unclear=True),
        Fault("cut JSON", "cld", True, _cut, is_unclear=True),
        Fault(
            "no response in JSON",
            "cld",
            True,
            plain(200, b"null", b"[]", b"{}", b"\xff\xfe", b"", b'"text"', b"[" * 5000, kind="application/json"),
            is_unclear=True,
        ),
        Fault("error with 200", "cl", True, refused(200, "x", "An error."), is_unclear=True),
        Fault("other response", "l", True, _with(id="resp_other", status="completed")),
        Fault("unknown status", "cl", True, _with(status="pondering")),
        Fault("null status", "l", True, _with(status=None)),
        Fault("back to queued", "l", True, _with(status="queued", output=None)),
        Fault("token expired", "clxd", False, refused(401, "401", "Access denied due to invalid subscription key.")),
        Fault("firewall", "clxd", False, refused(403, "AccessDenied", "Public access is disabled.")),
        Fault("redirect", "clxd", False, plain(307, b"")),
        Fault("404 of a gateway", "clxd", False, refused(404, "404", "Resource not found")),
        Fault("no deployment", "c", False, refused(404, "DeploymentNotFound", "The API deployment does not exist.")),
        Fault("content filter", "c", False, refused(400, "content_filter", "The prompt was filtered.")),
        Fault("cancel refused", "x", False, refused(409, "conflict", "Not now.")),
    )
}

TRAITS: Final = (
    "404 at first",
    "404 for good",
    "404 for a while",
    "fails",
    "incomplete",
    "cancelled by the service",
    "finishes in spite of a cancel",
    "cancelled, then completed",
    "ends at once",
    "runs for long",
    "never queued",
)
