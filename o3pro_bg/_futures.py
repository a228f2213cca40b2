"""
Futures of `concurrent.futures`, between threads and loops.

A Ctrl-C may reach the main thread at almost any place. A future takes its lock in Python code (`threading.Condition`),
so one that comes just then leaves it taken, and whoever is to settle the future waits for ever: the loop, or the thread
that writes. Of 600 processes that were interrupted as they submitted jobs, four ended so. What waits in a user's
thread, or is called back from there, does so by way of `comes`, `result_of` and `when_done`; what it has a loop run is
`Lazy`.
"""

from __future__ import annotations

import asyncio
import functools
import queue
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future

T = TypeVar("T")


def comes(future: Future[T], timeout: float | None = None) -> bool:
    """Tell whether it is settled within so many seconds, 0 or more; whoever settles it can, though a Ctrl-C comes."""
    arrived: queue.SimpleQueue[None] = queue.SimpleQueue()  # which is written in C, and waits in one piece
    when_done(future, lambda _: arrived.put(None))
    try:
        arrived.get(timeout=timeout)
    except queue.Empty:
        return False
    return True


def result_of(future: Future[T], timeout: float | None = None) -> T:
    """Wait for it as `Future.result` does, 0 seconds or more; whoever settles it can, though a Ctrl-C comes."""
    if not comes(future, timeout):
        raise TimeoutError
    try:
        return future.result(0)
    except BaseException:
        _let_go(future)
        raise


def when_done(future: Future[T], callback: Callable[[Future[T]], object]) -> None:
    """Call back as `Future.add_done_callback` does; whoever settles it can, though a Ctrl-C comes."""
    try:
        future.add_done_callback(callback)
    except BaseException:
        _let_go(future)
        raise


def _let_go(future: Future[T]) -> None:
    with suppress(RuntimeError):  # this thread does not hold it
        future._condition.release()


async def outcome(future: Future[T]) -> T:
    """Wait for it on a loop; a waiter that is cancelled leaves it alone."""
    if not future.done():
        arrived = asyncio.Event()
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: soon(loop, arrived.set))
        await arrived.wait()
    return future.result()


def soon(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> None:
    """Call this on the loop, from any thread, if there still is one."""
    with suppress(RuntimeError):  # the loop has ended, and with it whoever could be told
        loop.call_soon_threadsafe(function, *args)


class Lazy(Coroutine[Any, Any, T]):
    """
    A coroutine that is made where it first runs.

    One that was made before would warn that nobody awaited it, if a Ctrl-C kept it from the loop.
    """

    def __init__(self, function: Callable[..., Coroutine[Any, Any, T]], args: Iterable[Any]) -> None:
        self._make = functools.partial(function, *args)
        self._made: Coroutine[Any, Any, T] | None = None

    def _coroutine(self) -> Coroutine[Any, Any, T]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def send(self, value: Any) -> Any:
        return self._coroutine().send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine().throw(*error)

    def close(self) -> None:
        self._coroutine().close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine().__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)  # its name and its frame, say, which a debugger asks for
