"""What goes wrong, and when."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from o3pro_bg.emulator import _errors
from o3pro_bg.emulator._knobs import Knobs
from o3pro_bg.emulator._server import ConnectionReset
from o3pro_bg.emulator._wire import Reply

SERVER = ""
"""The scope in which the server's fault is counted; a job's own is counted under the job's key."""

_HTML = b"<!DOCTYPE html><html><head><title>%b</title></head><body><h1>%b</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Fault:
    """
    Spoils one exchange: `act` turns the true answer into what the client gets, or never returns.

    `performs` says whether the request is performed first; where it is not, the true answer is empty.
    """

    performs: bool
    act: Callable[[Reply, Knobs, str], Awaitable[Reply]]


class Tally:
    """Decides whether a fault is due, and counts the requests that it could have hit."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def due(self, scope: str, knobs: Knobs, verb: str) -> Fault | None:
        """Returns the fault that this request meets, if it meets one."""
        if knobs.fault is None or knobs.on not in (verb, "any"):
            return None
        self._seen[scope] = self._seen.get(scope, 0) + 1
        hit = self._seen[scope] - knobs.after
        return FAULTS[knobs.fault] if hit > 0 and (knobs.times == 0 or hit <= knobs.times) else None

    def forget(self, scope: str | None = None) -> None:
        """Starts the count anew, in one scope or in all."""
        if scope is None:
            self._seen.clear()
        else:
            self._seen.pop(scope, None)


def _refuses(refusal: Callable[[Knobs, str], _errors.Refusal]) -> Fault:
    async def act(true: Reply, knobs: Knobs, response_id: str) -> Reply:
        return refusal(knobs, response_id).reply

    return Fault(performs=False, act=act)


def _answers(reply: Callable[[bytes, Knobs], Reply], *, performs: bool = True) -> Fault:
    async def act(true: Reply, knobs: Knobs, response_id: str) -> Reply:
        return reply(true.body if isinstance(true.body, bytes) else b"{}", knobs)

    return Fault(performs=performs, act=act)


async def _reset(true: Reply, knobs: Knobs, response_id: str) -> Reply:
    raise ConnectionReset


async def _hang(true: Reply, knobs: Knobs, response_id: str) -> Reply:
    await asyncio.Event().wait()  # until the connection is lost, which cancels us
    return true


def _html(status: int, title: bytes) -> Reply:
    return Reply(status, _HTML % (title, title), media="text/html; charset=utf-8")


async def _slow(true: Reply, knobs: Knobs, response_id: str) -> Reply:
    if not isinstance(true.body, bytes):
        return true  # a stream is slow by itself
    return Reply(true.status, _dribble(true.body, knobs.slow), true.headers, length=len(true.body))


async def _dribble(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    begun = time.monotonic()
    for at in range(len(body)):
        # Against the clock, not by a fixed pause: a loop's sleeps are too coarse to add a thousand of them.
        await asyncio.sleep(begun + seconds * (at + 1) / len(body) - time.monotonic())
        yield body[at : at + 1]


def _retry_headers(knobs: Knobs) -> dict[str, str]:
    headers = {}
    if knobs.retry_after_date is not None:
        from email.utils import formatdate  # slow to import, seldom needed

        headers["retry-after"] = formatdate(time.time() + knobs.retry_after_date, usegmt=True)
    if knobs.retry_after is not None:
        headers["retry-after"] = f"{knobs.retry_after:.15g}"
    if knobs.retry_after_ms is not None:
        headers["retry-after-ms"] = str(knobs.retry_after_ms)
    return headers


FAULTS: dict[str, Fault] = {
    "400": _refuses(lambda knobs, _: _errors.content_filter()),
    "401": _refuses(lambda knobs, _: _errors.wrong_key()),
    "401-audience": _refuses(lambda knobs, _: _errors.wrong_audience()),
    "403": _refuses(lambda knobs, _: _errors.firewall()),
    "404": _refuses(lambda knobs, response_id: _errors.response_not_found(response_id)),
    "404-deployment": _refuses(lambda knobs, _: _errors.deployment_not_found()),
    "404-resource": _refuses(lambda knobs, _: _errors.resource_not_found()),
    "408": _refuses(lambda knobs, _: _errors.timed_out()),
    "409": _refuses(lambda knobs, _: _errors.conflict()),
    "429": _refuses(lambda knobs, _: _errors.rate_limited(_retry_headers(knobs), knobs.retry_after)),
    "500": _refuses(lambda knobs, _: _errors.server_error()),
    "503": _refuses(lambda knobs, _: _errors.overloaded(_retry_headers(knobs))),
    "html-502": _answers(lambda _, knobs: _html(502, b"502 Bad Gateway"), performs=False),
    "redirect": _answers(
        lambda _, knobs: Reply(307, headers={"location": "http://127.0.0.1:1/elsewhere"}), performs=False
    ),
    "reset": Fault(performs=False, act=_reset),
    "html": _answers(lambda _, knobs: _html(200, b"Welcome")),
    "empty": _answers(lambda _, knobs: Reply(200)),
    "truncated": _answers(lambda body, knobs: Reply(200, body[: len(body) // 2])),
    "short": _answers(lambda body, knobs: Reply(200, body[: len(body) // 2], length=len(body))),
    "null": _answers(lambda _, knobs: Reply(200, b"null")),
    "list": _answers(lambda _, knobs: Reply(200, b"[]")),
    "object": _answers(lambda _, knobs: Reply(200, b"{}")),
    "reset-after": Fault(performs=True, act=_reset),
    "hang": Fault(performs=True, act=_hang),
    "slow": Fault(performs=True, act=_slow),
}
"""What each fault of `_knobs.FAULTS` does."""
