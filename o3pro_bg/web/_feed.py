"""
What has changed of the jobs, as a stream of server-sent events.

As long as anybody listens, the records are looked through several times a second: a record that has changed is
another object, so that costs next to nothing, and it tells of the jobs of other processes as well as of those lived
here. Events are kept for a while, and every one holds the whole of a job's row, so who comes back goes on where he
was, and nothing depends on an event having been heard.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from o3pro_bg._records import JobRecord
    from o3pro_bg.web._desk import Desk
    from o3pro_bg.web._leaving import Leaving

TICK: Final = 0.25  # seconds between two looks
HEARTBEAT: Final = 15.0  # seconds after which a line is sent that says nothing, so that no proxy hangs up
LONG_LIFE: Final = 300.0  # seconds after which a stream ends, and is opened again by whoever listens
SHORT_LIFE: Final = 1.5  # the same, where nobody tells us that the server waits for the stream to end
_KEPT: Final = 2000  # events


class Feed:
    """
    The events of a desk's jobs: `job` with a row, `removed` with a job's id, and `reset` for who missed some.

    Attributes:
        streams: How many listen.
    """

    def __init__(self, desk: Desk, leaving: Leaving) -> None:
        self.streams = 0
        self._desk = desk
        self._leaving = leaving
        self._series = secrets.token_hex(4)  # another process, or another start of this one, counts anew
        self._last = 0
        self._events: deque[bytes] = deque(maxlen=_KEPT)
        self._seen: dict[str, JobRecord] | None = None
        self._bell = asyncio.Event()
        self._ticking: asyncio.Task[None] | None = None

    def position(self) -> str:
        """Answer the id of the newest event: whoever listens from there misses nothing that comes after now."""
        self._look()
        return f"{self._series}-{self._last}"

    async def stream(self, after: str | None) -> AsyncIterator[bytes]:
        """
        Answer the events after the one of this id, or from now on, as the bytes of an event stream.

        It ends after five minutes, as the server is about to end, or, where that could not be heard of, very soon:
        whoever listens comes back with the id of the last event.
        """
        loop = asyncio.get_running_loop()
        self._leaving.serve()
        ends_at = loop.time() + (LONG_LIFE if self._leaving.is_certain else SHORT_LIFE)
        self.streams += 1
        self._tick()
        try:
            self._look()
            cursor = self._last if after is None else self._cursor(after)
            yield b"retry: 1000\n\n" if cursor is not None else self._reset()
            cursor = self._last if cursor is None else cursor
            while not self._leaving.heard.is_set() and (left := ends_at - loop.time()) > 0:
                if missed := self._last - cursor:
                    cursor = self._last
                    yield self._since(missed)
                elif not await self._has_rung(min(left, HEARTBEAT)):
                    yield b":\n\n"
        finally:
            self.streams -= 1

    async def _has_rung(self, patience: float) -> bool:
        """Wait so many seconds for something to happen, and tell whether it did."""
        try:
            async with asyncio.timeout(patience):
                await self._bell.wait()
        except TimeoutError:
            return False
        return True

    def _cursor(self, event_id: str) -> int | None:
        """Answer the number of this event; None where it is not one of this series, or those after it are not kept."""
        series, _, number = event_id.partition("-")
        if series != self._series or not (number.isascii() and number.isdecimal() and len(number) < 16):
            return None
        return int(number) if self._last - len(self._events) <= int(number) <= self._last else None

    def _reset(self) -> bytes:
        return b"retry: 1000\n" + self._written("reset", {}, self._last)

    def _since(self, missed: int) -> bytes:
        if missed > len(self._events):
            return self._reset()
        return b"".join(islice(self._events, len(self._events) - missed, None))

    def _tick(self) -> None:
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._run(), name="o3pro_bg events")

    async def _run(self) -> None:
        leaving = asyncio.create_task(self._leaving.heard.wait())
        try:
            while self.streams and not leaving.done():
                self._look()
                self._leaving.look()
                await asyncio.wait([leaving], timeout=TICK)
        finally:
            leaving.cancel()
            self._ring()

    def _look(self) -> None:
        """Make an event of everything that has changed; what is more than is kept is told by a `reset`."""
        before, self._seen = self._seen, {record.job_id: record for record in self._desk.records()}
        if before is None:  # nobody can have heard of anything before
            return
        changed = [record for job_id, record in self._seen.items() if before.get(job_id) is not record]
        removed = before.keys() - self._seen.keys()
        if len(changed) + len(removed) > _KEPT:
            self._events.clear()
            self._last += _KEPT
        else:
            for record in changed:
                self._say("job", self._desk.row(record))
            for job_id in removed:
                self._say("removed", {"job_id": job_id})
        if changed or removed:
            self._ring()

    def _say(self, kind: str, data: Any) -> None:
        self._last += 1
        self._events.append(self._written(kind, data, self._last))

    def _written(self, kind: str, data: Any, number: int) -> bytes:
        text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
        return f"id: {self._series}-{number}\nevent: {kind}\ndata: {text}\n\n".encode()

    def _ring(self) -> None:
        """Wake those who listen."""
        self._bell.set()
        self._bell = asyncio.Event()
