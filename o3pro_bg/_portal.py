"""A dedicated thread with an event loop: the bridge from any thread to the engine."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import os
import queue
import selectors
import sys
import threading
import time
import traceback
import warnings
import weakref
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

from anyio import CapacityLimiter

from o3pro_bg._forks import KEPT, disown, whole
from o3pro_bg._futures import Lazy, comes, result_of, when_done
from o3pro_bg.errors import HandlerClosed, WrongThread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

log = logging.getLogger("o3pro_bg")

T = TypeVar("T")

_PATIENCE: Final = 1.0  # seconds after which it is asked whether the loop is blocked, and in which it has to answer
_TOLD_FOR: Final = 60.0  # seconds until it is told again
_EXIT_GRACE: Final = 1.2  # seconds for the farewells of all handlers when the interpreter exits
_CALLBACK_GRACE: Final = 1.0  # seconds after it for callbacks that have begun
_CALLBACK_THREADS: Final = 64  # callbacks at once; a limiter of theirs, for they may wait for jobs
_JOIN_GRACE: Final = 3.0  # seconds beside the farewell for the thread to end


class LoopThread:
    """
    An event loop on a daemon thread, started by the first coroutine that is handed over.

    It ends by `stop`, when nobody holds it any more, or when the interpreter exits; in each case the farewell
    runs on the loop first.

    Args:
        farewell: Runs on the loop before it ends; takes the seconds that it may last.

    Attributes:
        callbacks: Bounds the worker threads that users' callbacks run in.
    """

    def __init__(self, farewell: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        self.callbacks = CapacityLimiter(_CALLBACK_THREADS)
        self._farewell = farewell
        self._lock = threading.RLock()  # a signal handler may stop what its own thread starts
        self._server: _Server | None = None
        self._stopped = False
        self._has_warned = False

    @property
    def is_open(self) -> bool:
        """Tell whether a coroutine would be taken: not stopped, and the thread neither ended nor lost in a fork."""
        return not self._stopped and (self._server is None or self._server.is_serving)

    def submit(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> concurrent.futures.Future[T]:
        """
        Start a coroutine on the loop, with the caller's context variables, and answer its future.

        Raises:
            HandlerClosed: The loop has ended.
        """
        if self._server is not None and not self._server.is_serving:
            raise _closed()  # before the lock, which nobody may ever give back in a forked process
        with self._lock:
            if not self.is_open:
                raise _closed()
            server = self._server or self._begin()
            if self._stopped:  # by a signal handler, while the thread was made
                server.ring(0)
                raise _closed()
            return server.submit(function, *args)

    def _begin(self) -> _Server:
        server = _Server(self._farewell)
        try:
            server.start()
            # Whoever drops the last reference must not wait: the bell is rung, and the thread ends by itself.
            weakref.finalize(self, server.ring, _EXIT_GRACE).atexit = False
            self._server = server
        except BaseException:
            server.forsake()
            raise
        return server

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """
        Run a coroutine on the loop, and wait for what it answers or raises.

        Raises:
            HandlerClosed: The loop has ended, or ends meanwhile.
            WrongThread: Called on the loop's own thread, which would wait for itself.
        """
        if self._is_here():
            raise WrongThread(
                "a call that waits was made on the handler's own thread, which would wait for itself: "
                "call it from another thread, or use check_status and get_result, which do not wait"
            )
        self._warn_in_a_loop()
        future = self.submit(function, *args)
        try:
            return self._outcome(future)
        except concurrent.futures.CancelledError:
            raise _closed() from None
        except BaseException:
            future.cancel()
            raise

    def _outcome(self, future: concurrent.futures.Future[T]) -> T:
        """Wait for it; what takes long may have a reason that is worth telling."""
        if not comes(future, _PATIENCE) and self._server is not None:
            self._server.mind()
        return result_of(future)

    def stop(self, grace: float) -> None:
        """End the loop after its farewell, which may last so many seconds; returns within a little more."""
        with self._lock:
            self._stopped = True
        if self._server is not None:
            is_running = self._server.is_serving and not self._is_here()
            self._server.ring(grace)
            if is_running:
                self._warn_in_a_loop()
            self._server.join(grace + _JOIN_GRACE)

    def _is_here(self) -> bool:
        return self._server is not None and threading.current_thread() is self._server.thread

    def _warn_in_a_loop(self) -> None:
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            # Under gevent one of ours runs in this thread, but not in the way.
            if not self._has_warned and all(loop is not server._loop for server in list(_SERVERS)):
                self._has_warned = True
                warnings.warn(
                    "a waiting call of BackgroundHandler blocks the event loop it is made in: "
                    "use AsyncBackgroundHandler there",
                    RuntimeWarning,
                    stacklevel=_level_outside(),
                )


def _level_outside() -> int:
    """Answer the stack level, for a warning of our caller, at which this package was called."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("o3pro_bg."):
        level, frame = level + 1, frame.f_back
    return level


class _Server:
    """What the thread runs. It knows nothing of its portal, so that a portal nobody holds can go."""

    def __init__(self, farewell: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        self._farewell = farewell
        self._made: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()  # the loop, or why there is none
        self._is_unwanted = False
        self._futures: set[concurrent.futures.Future[Any]] = set()
        self._lock = threading.RLock()
        self._at_exit = False
        self._is_ending = False
        self._told_at = float("-inf")  # that it is blocked
        self._pid = os.getpid()
        self.thread = threading.Thread(target=self._serve, name="o3pro_bg", daemon=True)

    def start(self) -> None:
        """Start the thread, and wait for its loop."""
        before = sys.exception()
        try:
            self.thread.start()
        except RuntimeError as exc:
            # A Ctrl-C becomes one where `threading` was about to give a lock back, and had not taken it yet.
            if isinstance(exc.__context__, KeyboardInterrupt) and exc.__context__ is not before:
                raise exc.__context__ from None
            raise _closed() from None  # as the interpreter exits, no thread starts any more
        if (trouble := self._made.get()) is not None:
            raise trouble
        _SERVERS.add(self)

    def forsake(self) -> None:
        """Have the thread end, if it has started: nobody will know it, and its farewell is for another one to say."""
        self._is_unwanted = True
        with suppress(AttributeError):  # the loop is not made yet
            self.ring(0)

    @property
    def is_serving(self) -> bool:
        """
        Tell whether the loop takes what it is handed, which in a forked process it does not.

        The thread is not asked whether it lives: a Ctrl-C in the midst of that marks it as ended (CPython 3.12).
        """
        return self._pid == os.getpid() and not self._is_ending

    def submit(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> concurrent.futures.Future[T]:
        try:
            with self._lock:
                if self._is_ending:
                    raise RuntimeError
                future = asyncio.run_coroutine_threadsafe(Lazy(function, args), self._loop)
                self._futures.add(future)
        except RuntimeError:  # the loop has ended, or tidies up
            raise _closed() from None
        when_done(future, self._futures.discard)
        return future

    def mind(self) -> None:
        """Tell, once a minute at the most, where the loop stands, if it does not answer."""
        answers: queue.SimpleQueue[None] = queue.SimpleQueue()
        with suppress(RuntimeError):  # the loop ends just now
            self._loop.call_soon_threadsafe(answers.put, None)
        with suppress(queue.Empty):
            answers.get(timeout=_PATIENCE)
            return
        with self._lock:
            is_due = self.is_serving and time.monotonic() > self._told_at + _TOLD_FOR
            self._told_at = time.monotonic() if is_due else self._told_at
        if is_due:
            log.warning(
                "the loop of a handler has not answered for a second, and all jobs stand still: it is in %s; what "
                "takes long there belongs in a thread of its own",
                _place_of(self.thread),
            )

    def ring(self, grace: float, *, at_exit: bool = False) -> None:
        """Have the farewell said; does not wait."""
        with suppress(RuntimeError):  # the loop ends just now
            if self.is_serving:
                self._loop.call_soon_threadsafe(self._hear, grace, at_exit)

    def disown(self) -> None:
        """In a forked process, have nothing of the loop reach the parent's sockets, whoever tidies it up there."""
        poll = getattr(self._selector, "fileno", None)  # of epoll, say, which both processes share
        disown([key.fd for key in self._selector.get_map().values()] + ([poll()] if poll else []))

    def join(self, seconds: float) -> None:
        if self.thread is not threading.current_thread():
            self.thread.join(min(seconds, threading.TIMEOUT_MAX))

    def _hear(self, grace: float, at_exit: bool) -> None:  # noqa: FBT001 - call_soon passes by position
        self._at_exit = at_exit
        if at_exit:
            self._loop.set_default_executor(_Inline())
        if not self._bell.done():
            self._bell.set_result(grace)

    def _make(self) -> None:
        """Make the loop, on its own thread: a Ctrl-C elsewhere could leave it half made, which is told when it goes."""
        self._selector = selectors.DefaultSelector()
        # Whatever the policy: of another kind of loop nobody would know which sockets it has.
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._bell: asyncio.Future[float] = self._loop.create_future()

    def _serve(self) -> None:
        try:
            self._make()
        except BaseException as exc:
            self._made.put(exc)
            return
        self._made.put(None)
        try:
            with whole():
                import_module("anyio._backends._asyncio")  # which the first job would do, whenever a fork comes
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                try:
                    runner.run(self._until_rung())
                finally:  # whoever comes while it tidies up would be forgotten
                    self._is_ending = True
        except BaseException as exc:
            # As the interpreter exits, a loop cannot end its thread pool (CPython 3.12): all else is done by then.
            level = logging.DEBUG if self._at_exit else logging.ERROR
            log.log(level, "the loop of a handler ended by %s", type(exc).__name__)
        finally:
            _SERVERS.discard(self)
            with self._lock:  # the loop is closed: whoever had not come by now is refused
                futures = list(self._futures)
            for future in futures:
                with suppress(concurrent.futures.InvalidStateError):
                    future.set_exception(_closed())

    async def _until_rung(self) -> None:
        grace = 0.0 if self._is_unwanted else await self._bell
        if not self._is_unwanted:
            await self._farewell(grace)
        if callbacks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(callbacks, timeout=_CALLBACK_GRACE)


def _place_of(thread: threading.Thread) -> str:
    """Answer what a thread is doing: the last functions that were called, the newest first, and no line of theirs."""
    frame = sys._current_frames().get(thread.ident or 0)
    calls = traceback.extract_stack(frame, limit=4) if frame else []
    return " < ".join(f"{call.name} ({os.path.basename(call.filename)}:{call.lineno})" for call in reversed(calls))


class _Inline(concurrent.futures.ThreadPoolExecutor):
    """
    Runs what it is given at once, where it is given.

    When the interpreter exits, thread pools take nothing more, and without one a loop looks up no host name.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as exc:
            future.set_exception(exc)
        return future


def _closed() -> HandlerClosed:
    return HandlerClosed(
        "the handler is closed: make a new one (a handle from before a fork is the parent's: ask the handler for the "
        "job here, or attach to it)"
    )


_SERVERS: Final[set[_Server]] = set()


def _disown() -> None:
    """In a forked process, let the parent have its loops."""
    KEPT.extend(_SERVERS)
    for server in _SERVERS:
        server.disown()
    _SERVERS.clear()


getattr(os, "register_at_fork", dict)(after_in_child=_disown)  # no forks on Windows


@atexit.register
def _say_farewell() -> None:
    """End all loops as the interpreter exits: together, and in bounded time."""
    servers = list(_SERVERS)
    deadline = time.monotonic() + _EXIT_GRACE
    for server in servers:
        server.ring(_EXIT_GRACE, at_exit=True)
    for server in servers:
        server.join(max(deadline - time.monotonic(), 0.0))
