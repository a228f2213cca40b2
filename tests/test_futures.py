"""Futures that a Ctrl-C may find in somebody's hands; `test_interrupts` has it come at every moment."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg._futures import Lazy, result_of, when_done

if TYPE_CHECKING:
    from collections.abc import Callable


class Interrupted(Future[int]):
    """One whose user a Ctrl-C meets once the lock is taken, and before anybody would give it back."""

    def add_done_callback(self, fn: Callable[[Future[int]], object]) -> None:
        self._condition.acquire()
        raise KeyboardInterrupt


@pytest.mark.parametrize("use", [result_of, lambda future: when_done(future, repr)], ids=["waits", "is called back"])
def test_an_interrupted_user_keeps_nobody_from_settling_it(use: Callable[[Future[int]], Any]) -> None:
    """Another thread settles the future, though a Ctrl-C came as its lock was just taken."""
    future = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        use(future)
    settler = threading.Thread(target=future.set_result, args=(42,), daemon=True)
    settler.start()
    settler.join(5)
    assert future.result(0) == 42


def test_a_wait_that_runs_out_of_time_says_so() -> None:
    """`TimeoutError` after so many seconds, as of a future itself; what comes later is had later."""
    future: Future[int] = Future()
    with pytest.raises(TimeoutError):
        result_of(future, 0.01)
    future.set_result(42)
    assert result_of(future, 0.01) == 42


async def answer(value: int) -> int:
    return value


async def test_what_is_handed_over_is_a_coroutine_as_any_other() -> None:
    """It can be awaited, looked into by a debugger, and closed; and one that is made nowhere warns nobody."""
    assert await Lazy(answer, (42,)) == 42
    awaited, closed = Lazy(answer, (42,)), Lazy(answer, (42,))
    task = asyncio.create_task(awaited)
    assert await task == 42
    assert "answer()" in repr(task)
    closed.close()
    with pytest.raises(RuntimeError):
        await closed
    Lazy(answer, (42,))
