"""
Tools for tests, yours as well as ours: a service in memory, a loop in virtual time, the emulator as a fixture.

`FakeClient` stands in for `O3ProClient` and needs no network; `VirtualLoop` makes an hour of waiting take no
time; the pytest fixture `o3pro_emulator` runs the emulator, a real process on a real socket. To have the
fixture, name this module in a `conftest.py`::

    pytest_plugins = ["o3pro_bg.testing"]
"""

from __future__ import annotations

import asyncio
import importlib.util
import selectors
from collections import Counter
from typing import TYPE_CHECKING, Any

from o3pro_bg._records import Failure, News, Usage
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._states import Event
from o3pro_bg.config import O3ProConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from o3pro_bg._records import JobRequest
    from o3pro_bg.emulator import Emulator

__all__ = [
    "Event",
    "Failure",
    "FakeClient",
    "FakeRemote",
    "News",
    "RemoteTrouble",
    "Trouble",
    "Usage",
    "VirtualLoop",
    "run_virtual",
]


class VirtualLoop(asyncio.SelectorEventLoop):
    """
    An event loop whose clock jumps to the next timer instead of waiting for it.

    It runs what is ready, and when nothing is, time moves: an hour of sleeps takes no time, and always the
    same. Threads and sockets have no place on it: they need real time, which does not pass here.
    """

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_JumpingSelector(self))
        # asyncio takes a timer for due a nanosecond early; after half a year a float is too coarse for that.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Answer the virtual time, in seconds."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self._now += seconds


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("every task waits, and no timer is set: in virtual time that is for ever")
            self._loop.jump(timeout)
        return events


def run_virtual(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine function as `asyncio.run` does, in virtual time, and answer what it answers."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


class FakeRemote:
    """
    A service in memory, for the engine: it takes creates, and answers looks by a script or by the clock.

    Without a script a response is queued for `queued` seconds, runs until `seconds` have passed, and is
    completed then. What a test wants otherwise it puts into `script`, a list of what the next calls of a kind
    (`"create"`, `"look"`, `"cancel"`, `"delete"`) answer: `News`, `RemoteTrouble` to raise, or None for the usual
    answer. A response id that it did not give out counts as one created at time 0 of the loop's clock, until it is
    deleted: then there is none.

    Attributes:
        counts: How often each kind was called.
        asked: The requests that were created, by our job id, in order.
        max_in_flight: The most calls that were under way at once.
        latency: Seconds that each call takes.
    """

    def __init__(
        self, *, seconds: float = 60.0, queued: float = 1.0, latency: float = 0.0, background: bool = True
    ) -> None:
        self.background = background
        self.seconds = seconds
        self.queued = queued
        self.latency = latency
        self.script: dict[str, list[News | RemoteTrouble | None]] = {
            kind: [] for kind in ("create", "look", "cancel", "delete")
        }
        self.counts: Counter[str] = Counter()
        self.asked: list[tuple[str, JobRequest]] = []
        self.max_in_flight = 0
        self.is_closed = False
        self._in_flight = 0
        self._born: dict[str, float] = {}
        self._cancelled: set[str] = set()
        self._deleted: set[str] = set()

    async def prepare(self) -> None:
        """Nothing is needed."""

    async def create(self, job_id: str, request: JobRequest) -> News:
        """Take the question; in the foreground, answer it after `seconds`."""
        self.asked.append((job_id, request))
        said = await self._call("create")
        response_id = f"resp_fake_{len(self._born) + 1}"
        self._born[response_id] = asyncio.get_running_loop().time()
        if self.background or said is not None:
            return said or News(Event.ACCEPTED, response_id=response_id)
        await asyncio.sleep(self.seconds)
        return self._news(response_id)

    async def look(self, response_id: str) -> News:
        """Answer how far the response is."""
        return await self._call("look") or self._news(response_id)

    async def cancel(self, response_id: str) -> None:
        """Stop the response, unless it has ended."""
        await self._call("cancel")
        if self._news(response_id).event in (Event.ACCEPTED, Event.PROGRESSED):
            self._cancelled.add(response_id)

    async def delete(self, response_id: str) -> None:
        """Delete the response, once or again: what comes later finds none."""
        await self._call("delete")
        self._deleted.add(response_id)

    async def aclose(self) -> None:
        """Close."""
        self.is_closed = True

    async def _call(self, kind: str) -> News | None:
        self.counts[kind] += 1
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            await asyncio.sleep(self.latency)
        finally:
            self._in_flight -= 1
        script = self.script.get(kind)
        said = script.pop(0) if script else None
        if isinstance(said, RemoteTrouble):
            raise said
        return said

    def _news(self, response_id: str) -> News:
        if response_id in self._deleted:
            raise RemoteTrouble(Trouble.MISSING, Failure("lost", f"Response with id '{response_id}' not found."))
        age = asyncio.get_running_loop().time() - self._born.get(response_id, 0.0)
        usage = Usage(input_tokens=10, output_tokens=100, reasoning_tokens=80)
        if response_id in self._cancelled:
            return News(Event.CANCELLED, response_id=response_id, usage=Usage(input_tokens=10, output_tokens=0))
        if age >= self.seconds:
            return News(Event.ANSWERED, response_id=response_id, answer=f"fake answer of {response_id}", usage=usage)
        return News(Event.ACCEPTED if age < self.queued else Event.PROGRESSED, response_id=response_id)


class FakeClient:
    """
    A client of a `FakeRemote`, for any handler.

    Args:
        remote: The service; default one whose jobs take a minute.
        config: The configuration; default one that is ready.
    """

    def __init__(self, remote: FakeRemote | None = None, config: O3ProConfig | None = None) -> None:
        self.remote = remote or FakeRemote()
        self.config = config or O3ProConfig(endpoint="https://fake.openai.azure.com", api_key="fake")
        self._is_ready = not self.config.validate()

    def __repr__(self) -> str:
        return f"<FakeClient {self.config.deployment}>"

    def is_ready(self) -> bool:
        """Tell whether the configuration has no problems."""
        return self._is_ready

    async def connect(self) -> FakeRemote:
        """Answer the remote."""
        return self.remote


if importlib.util.find_spec("pytest"):
    import pytest

    @pytest.fixture
    def o3pro_emulator() -> Iterator[Emulator]:
        """Run an emulator for one test: `endpoint`, `api_key`, `counters()` and `set_knobs()` are what it offers."""
        from o3pro_bg.emulator import Emulator

        with Emulator() as emulator:
            yield emulator
