"""
The thread that asks the database for places.

It is no `ThreadPoolExecutor`: a process that ends waits for the threads of one, though a database that hangs may never
answer, and it does so before its handlers say farewell.
"""

from __future__ import annotations

import weakref
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from threading import RLock, Thread
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    Questions = SimpleQueue["tuple[Future[Any], Callable[[], Any]] | None"]

T = TypeVar("T")


class Asker:
    """Asks one thing after the other, on a thread that it has once it is needed, and that nobody waits for."""

    def __init__(self) -> None:
        self._questions: Questions = SimpleQueue()
        self._gate = RLock()  # a signal handler may close what its own thread asks
        self._has_thread = self._is_closed = False
        weakref.finalize(self, self._questions.put, None).atexit = False

    def submit(self, verb: Callable[..., T], *args: Any) -> Future[T]:
        """
        Have this asked, after all that was asked before it.

        Raises:
            RuntimeError: The asker is closed, or no thread can be had, for now or because the process ends.
        """
        future: Future[T] = Future()
        with self._gate:
            if self._is_closed:
                raise RuntimeError("the asker is closed")
            if not self._has_thread:
                # It does not hold the asker, so one that nobody holds any more can go, and its thread with it.
                Thread(target=_serve, args=(self._questions,), name="o3pro_bg pace", daemon=True).start()
                self._has_thread = True
            self._questions.put((future, partial(verb, *args)))
        return future

    def close(self) -> None:
        """Ask nothing more: what waits is cancelled, and what is being asked is not waited for."""
        with self._gate:
            self._is_closed = True
        try:
            while (question := self._questions.get_nowait()) is not None:
                question[0].cancel()
        except Empty:
            pass
        self._questions.put(None)


def _serve(questions: Questions) -> None:
    while (question := questions.get()) is not None:
        future, ask = question
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(ask())
            except BaseException as exc:  # whatever it is, it is for who asked
                future.set_exception(exc)
        del question, future, ask  # what they hold may go while nothing is asked
