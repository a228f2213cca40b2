"""One way to drive both faces, so that one suite of promises holds for the two."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self

from o3pro_bg import AsyncBackgroundHandler, BackgroundHandler, Pace
from o3pro_bg.testing import FakeClient, FakeRemote

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from o3pro_bg._remote import Client

FOREVER = float("inf")
QUICK = Pace(floor=0.01, ceiling=0.02)


class Driver:
    """A handler, its verbs as plain calls whatever the face; `do` resolves what a verb or a handle answers."""

    def __init__(self, face: str, client: Client, settings: dict[str, Any]) -> None:
        self.face = face
        self._loop = asyncio.new_event_loop() if face == "async" else None
        self._thread: threading.Thread | None = None
        if self._loop is not None:
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()
        kind = AsyncBackgroundHandler if face == "async" else BackgroundHandler
        self.handler: Any = kind(client, **{"pace": QUICK, **settings})

    def do(self, verb: str, *args: Any, of: Any = None, **kwargs: Any) -> Any:
        """Call this verb of the handler, or of the handle `of`, and answer what it answers."""
        function = getattr(of or self.handler, verb)
        if self._loop is None:
            return function(*args, **kwargs)

        async def call() -> Any:
            answer = function(*args, **kwargs)
            return await answer if asyncio.iscoroutine(answer) else answer

        return self._resolve(call())

    def completed(self, *args: Any, **kwargs: Any) -> list[tuple[str, Any]]:
        """Answer what `as_completed` yields, in its order."""
        if self._loop is None:
            return list(self.handler.as_completed(*args, **kwargs))

        async def collect() -> list[tuple[str, Any]]:
            return [pair async for pair in self.handler.as_completed(*args, **kwargs)]

        answer: list[tuple[str, Any]] = self._resolve(collect())
        return answer

    def start(self, question: str = "q", effort: str = "low", **options: Any) -> str:
        """Start a job and answer its id."""
        reply = self.do("start_background_task", question, effort, **options)
        assert reply["success"], reply
        job_id: str = reply["job_id"]
        return job_id

    def until(self, job_id: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask for the status until it is so; bounded, for things that happen on another thread."""
        pause = threading.Event()
        for _ in range(6000):
            status: dict[str, Any] = self.do("check_status", job_id)
            if is_so(status):
                return status
            pause.wait(0.005)
        raise AssertionError(f"not within half a minute: {status}")

    def close(self) -> None:
        """Close the handler."""
        self.do("aclose" if self.face == "async" else "close")

    def tear_down(self) -> None:
        """Close the handler, and what the driver made for it."""
        self.close()
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tear_down()

    def _resolve(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)


async def came_true(condition: Callable[[], object]) -> None:
    """Wait, half a minute at most, for what another task or thread brings about and no event tells."""
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("not within half a minute")


def fake(**kwargs: Any) -> FakeClient:
    """Answer a client of a fake service whose jobs take these seconds."""
    return FakeClient(FakeRemote(**{"seconds": 0.03, "queued": 0.0, **kwargs}))
