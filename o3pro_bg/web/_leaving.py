"""
Hears that the server is told to end while it still waits for its requests.

Servers run an application's shutdown only after the last request has been answered, so a stream of events would keep
them, or be cut off. What most of them hear first is a signal. Hypercorn's workers are told by their parent, and what
waits for that is a task; uvicorn also ends by itself, after so many requests, and then listens no more.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg._futures import soon

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_SIGNALS: Final = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGBREAK")
_TASK: Final = "raise_shutdown"  # what Hypercorn calls the coroutine that waits until it is to end


class Leaving:
    """
    Whether the server of the running loop is about to end.

    Attributes:
        heard: Set once it is.
        is_certain: Whether that is heard at all: a server on another thread than the main one gets no signals.
    """

    def __init__(self) -> None:
        self.heard = asyncio.Event()
        self.is_certain = False
        self._loop = asyncio.get_running_loop()
        self._replaced: dict[int, tuple[Any, Any]] = {}
        self._has_served = False
        self._servers: list[Any] = []

    def listen(self) -> None:
        """Hear, before the server does, the signals that it handles by now; those that it does not are left alone."""
        if threading.current_thread() is not threading.main_thread():
            return
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            if number is not None and callable(before := signal.getsignal(number)):
                ours = self._before(before)
                signal.signal(number, ours)
                self._replaced[number] = (ours, before)
        self.is_certain = signal.SIGTERM in self._replaced

    def serve(self) -> None:
        """Hear what there is to be heard only once the server serves; whoever would keep it waiting calls this."""
        if self._has_served:
            return
        self._has_served = True
        for task in asyncio.all_tasks():
            if getattr(task.get_coro(), "__name__", "") == _TASK:
                task.add_done_callback(self._tell)
                self.is_certain = True
        handlers = [getattr(inspect.unwrap(before), "__self__", None) for _, before in self._replaced.values()]
        self._servers = [server for server in handlers if hasattr(server, "servers")]  # uvicorn's

    def look(self) -> None:
        """Hear an end that nothing tells; asked for several times a second where the server would wait."""
        for server in self._servers:
            if server.servers and not any(listening.is_serving() for listening in server.servers):
                self.heard.set()

    def _tell(self, _: object) -> None:
        self.heard.set()

    def _before(self, handler: Callable[[int, FrameType | None], object]) -> Callable[[int, FrameType | None], object]:
        @functools.wraps(handler)  # so that the lifespan of another name sees whose it is
        def hear(number: int, frame: FrameType | None) -> object:
            soon(self._loop, self.heard.set)
            return handler(number, frame)

        return hear

    def stop(self) -> None:
        """Leave the signals as they were, where nobody has changed them since."""
        self.heard.set()
        for number, (ours, before) in self._replaced.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, before)
        self._replaced.clear()
