"""What is promised of the loop thread: the bridge from any thread, and how it ends. Real threads, no sleeps."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import errno
import gc
import os
import selectors
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import _forks, _futures, _portal
from o3pro_bg._portal import LoopThread
from o3pro_bg.errors import HandlerClosed, WrongThread

from .peers import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

PATIENCE = 30.0  # seconds after which a test fails instead of hanging


async def farewell(grace: float) -> None:
    """Say nothing."""


async def answer(value: int) -> int:
    return value


async def who() -> int:
    return threading.get_ident()


async def for_ever(begun: threading.Event) -> None:
    begun.set()
    await asyncio.Event().wait()


@pytest.fixture
def portal(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopThread]:
    """A loop thread with little patience, stopped after the test."""
    for grace in ("_EXIT_GRACE", "_CALLBACK_GRACE", "_JOIN_GRACE"):
        monkeypatch.setattr(_portal, grace, 0.05)
    portal = LoopThread(farewell)
    yield portal
    portal.stop(0)
    if (server := portal._server) is not None:
        server.thread.join(PATIENCE)


def thread_of(portal: LoopThread) -> threading.Thread:
    """Answer the thread of a portal that was used."""
    assert portal._server is not None
    return portal._server.thread


class Caller:
    """A thread that makes one call and keeps what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._outcome.set_result(self._call())
        except BaseException as exc:
            self._outcome.set_exception(exc)

    def outcome(self) -> Any:
        """Answer what the call answered, or raise what it raised."""
        return self._outcome.result(PATIENCE)


# --- calls ------------------------------------------------------------------------------------------------------


def test_the_thread_starts_at_the_first_use(portal: LoopThread) -> None:
    """A portal that is not used costs no thread; it is open all the same."""
    before = {*threading.enumerate()}
    assert portal.is_open
    assert before >= {*threading.enumerate()}
    assert portal.call(answer, 42) == 42
    assert len({*threading.enumerate()} - before) == 1
    assert thread_of(portal).daemon


def test_a_first_use_from_many_threads_makes_one_thread(portal: LoopThread) -> None:
    """A hundred threads that come at once share one loop: a naive lazy start makes several."""
    barrier = threading.Barrier(100)

    def first_use() -> int:
        barrier.wait(PATIENCE)
        return portal.call(who)

    callers = [Caller(first_use) for _ in range(100)]
    assert {caller.outcome() for caller in callers} == {thread_of(portal).ident}


def test_submit_answers_at_once(portal: LoopThread) -> None:
    """The future is there before the coroutine has run, and gets what it answers."""
    release = threading.Event()

    async def held() -> int:
        await asyncio.to_thread(release.wait, PATIENCE)
        return 42

    future = portal.submit(held)
    assert not future.done()
    release.set()
    assert future.result(PATIENCE) == 42


@pytest.mark.parametrize("fault", [ValueError, TimeoutError, KeyError])
def test_a_call_raises_what_the_coroutine_raises(portal: LoopThread, fault: type[Exception]) -> None:
    """Its exception comes back, with its words, a TimeoutError too; and the loop goes on."""

    async def fails() -> None:
        raise fault("mine")

    with pytest.raises(fault, match="mine"):
        portal.call(fails)
    assert portal.call(answer, 1) == 1


def test_context_variables_reach_the_coroutine(portal: LoopThread) -> None:
    """A coroutine runs in the context of whoever handed it over."""
    tenant = contextvars.ContextVar("tenant", default="nobody")

    async def ask() -> str:
        return tenant.get()

    portal.call(ask)
    tenant.set("me")
    assert portal.call(ask) == "me"


def test_a_call_from_the_loops_own_thread_is_refused(portal: LoopThread) -> None:
    """WrongThread says so at once; the naive call waits for itself for ever."""

    async def calls_itself() -> int:
        return portal.call(answer, 42)

    with pytest.raises(WrongThread, match="would wait for itself"):
        portal.call(calls_itself)


async def test_a_call_inside_a_running_loop_warns_once(portal: LoopThread) -> None:
    """It works, and says once that it blocks the loop."""
    with pytest.warns(RuntimeWarning, match="use AsyncBackgroundHandler there") as caught:
        assert portal.call(answer, 1) == 1
    assert [warning.filename for warning in caught] == [__file__]
    assert portal.call(answer, 2) == 2


async def test_a_stop_inside_a_running_loop_warns_where_it_waits(portal: LoopThread) -> None:
    """A stop that waits for the thread blocks the loop it is made in, and says so; one that finds it ended does not."""
    ended = LoopThread(farewell)
    for each in (portal, ended):
        each.submit(answer, 1)
    await asyncio.to_thread(ended.stop, 0)
    ended.stop(0)
    with pytest.warns(RuntimeWarning, match="use AsyncBackgroundHandler there") as caught:
        portal.stop(0)
    assert [warning.filename for warning in caught] == [__file__]


def test_nothing_is_kept_of_what_is_done(portal: LoopThread) -> None:
    """What a coroutine answered goes with whoever asked for it."""

    class Answer:
        pass

    async def make() -> Answer:
        return Answer()

    gone = weakref.ref(portal.call(make))
    until(lambda: (gc.collect(), gone())[1] is None)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
def test_an_interrupted_call_cancels_its_coroutine(portal: LoopThread) -> None:
    """Ctrl-C in a waiting call raises in the caller, and the coroutine that nobody waits for any more is cancelled."""
    begun, cancelled = threading.Event(), threading.Event()

    async def held() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    main = threading.main_thread().ident or 0

    def interrupt() -> None:
        begun.wait(PATIENCE)
        try:
            until(lambda: sys._current_frames()[main].f_code.co_filename == _futures.__file__)  # it waits by now
        finally:
            signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupter = Caller(interrupt)
        with pytest.raises(KeyboardInterrupt):
            portal.call(held)
        interrupter.outcome()
    finally:
        signal.signal(signal.SIGINT, before)
    assert cancelled.wait(PATIENCE)
    assert portal.call(answer, 1) == 1


# --- a blocked loop ---------------------------------------------------------------------------------------------


def blocking(portal: LoopThread) -> threading.Event:
    """Block the loop in `of_mine`, until the answered event is set."""
    begun, release = threading.Event(), threading.Event()

    async def of_mine() -> None:
        begun.set()
        release.wait(PATIENCE)

    portal.submit(of_mine)
    assert begun.wait(PATIENCE)
    return release


def test_a_blocked_loop_is_told_with_what_blocks_it(
    portal: LoopThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits for a loop that does not answer tells where it stands, once for all, and has his answer then."""
    monkeypatch.setattr(_portal, "_PATIENCE", 0.05)
    release = blocking(portal)
    callers = [Caller(lambda: portal.call(answer, 42)) for _ in range(10)]
    until(lambda: caplog.records)
    assert not callers[0]._outcome.done()
    release.set()
    assert [caller.outcome() for caller in callers] == [42] * 10
    (record,) = caplog.records
    assert (record.levelname, "the loop of a handler has not answered" in record.getMessage()) == ("WARNING", True)
    assert "of_mine (test_portal.py:" in record.getMessage()
    assert "release.wait" not in record.getMessage(), "a line of the user's may hold anything"


def test_a_loop_that_answers_is_not_blocked(
    portal: LoopThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However long somebody waits, nothing is told of a loop that does its work, nor of one that is closed."""
    monkeypatch.setattr(_portal, "_PATIENCE", 0.01)

    async def late(seconds: float) -> int:
        await asyncio.sleep(seconds)
        return 42

    async def times_out() -> None:
        raise TimeoutError("mine")

    assert portal.call(late, 0.1) == 42
    assert portal._server is not None
    with monkeypatch.context() as patch:
        patch.setattr(portal._server, "mind", lambda: 1 / 0)
        with pytest.raises(TimeoutError, match="mine"):
            portal.call(times_out)
    portal.stop(0)
    portal._server.mind()
    assert not caplog.records


# --- the end by stop --------------------------------------------------------------------------------------------


def test_stop_says_farewell_and_ends_the_thread() -> None:
    """The farewell gets the grace, on the loop; when `stop` returns the thread has ended."""
    said: list[tuple[float, int]] = []

    async def say(grace: float) -> None:
        said.append((grace, threading.get_ident()))

    portal = LoopThread(say)
    ident = portal.call(who)
    portal.stop(2.5)
    assert said == [(2.5, ident)]
    assert not thread_of(portal).is_alive()
    assert not portal.is_open


def test_stop_without_a_use_starts_nothing() -> None:
    """A portal that was never used stops without a thread and without a farewell."""
    portal = LoopThread(farewell)
    portal.stop(1)
    with pytest.raises(HandlerClosed):
        portal.submit(answer, 1)
    assert portal._server is None
    assert not portal.is_open


def test_after_stop_nothing_is_taken(portal: LoopThread) -> None:
    """Submit and call raise HandlerClosed, a second stop does nothing, and no coroutine is left unawaited."""
    portal.call(answer, 1)
    portal.stop(0)
    portal.stop(0)
    with pytest.raises(HandlerClosed):
        portal.submit(answer, 1)
    with pytest.raises(HandlerClosed):
        portal.call(answer, 1)
    # As if the loop had ended between the portal's look at the thread and its hand-over.
    assert portal._server is not None
    with pytest.raises(HandlerClosed):
        portal._server.submit(answer, 1)
    gc.collect()


def test_stop_is_bounded_when_the_farewell_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It returns while the farewell still hangs: the thread is left behind, and dies with the process."""
    monkeypatch.setattr(_portal, "_JOIN_GRACE", 0.05)
    stuck, released = threading.Event(), asyncio.Event()

    async def hang(grace: float) -> None:
        stuck.set()
        await released.wait()

    portal = LoopThread(hang)
    portal.call(answer, 1)
    portal.stop(0)
    assert thread_of(portal).is_alive()
    assert stuck.wait(PATIENCE)
    assert portal._server is not None
    portal._server._loop.call_soon_threadsafe(released.set)
    thread_of(portal).join(PATIENCE)
    assert not thread_of(portal).is_alive()


def test_a_farewell_that_raises_ends_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in the farewell is logged by its name only, and does not keep the thread."""

    async def fails(grace: float) -> None:
        raise ValueError("secret")

    portal = LoopThread(fails)
    portal.call(answer, 1)
    portal.stop(0)
    assert not thread_of(portal).is_alive()
    assert "the loop of a handler ended by ValueError" in caplog.text
    assert "secret" not in caplog.text


def test_a_waiter_wakes_when_the_loop_is_stopped(portal: LoopThread) -> None:
    """Whoever waits as the loop ends gets HandlerClosed, not silence."""
    begun = threading.Event()
    waiter = Caller(lambda: portal.call(for_ever, begun))
    assert begun.wait(PATIENCE)
    portal.stop(0)
    with pytest.raises(HandlerClosed):
        waiter.outcome()


def test_a_callback_that_has_begun_may_finish(portal: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs on the loop when the farewell is over gets a moment more."""
    monkeypatch.setattr(_portal, "_CALLBACK_GRACE", PATIENCE)
    monkeypatch.setattr(_portal, "_JOIN_GRACE", PATIENCE)
    stopping = threading.Event()

    async def finish() -> int:
        await asyncio.to_thread(stopping.wait, PATIENCE)
        return 42

    async def say(grace: float) -> None:
        stopping.set()

    portal._farewell = say
    future = portal.submit(finish)
    portal.stop(0)
    assert future.result(0) == 42


def test_a_portal_survives_an_interrupt_of_a_look(portal: LoopThread) -> None:
    """A Ctrl-C at whatever line of `threading`, in a look whether it is open, leaves it open (CPython 3.12)."""
    portal.call(answer, 1)
    left = 0

    def interrupt(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if event == "line" and frame.f_code.co_filename == threading.__file__:
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return interrupt

    tracer = sys.gettrace()  # a measurement of coverage, say
    for line in range(50):
        left = line
        with contextlib.suppress(KeyboardInterrupt):
            sys.settrace(interrupt)
            assert portal.is_open
        sys.settrace(tracer)
        assert portal.is_open
    assert portal.call(answer, 42) == 42


def test_stop_on_the_loops_own_thread_does_not_wait_for_itself(portal: LoopThread) -> None:
    """A callback may close its handler, twice if it likes: the farewell is said after it, once."""

    async def stops() -> str:
        portal.stop(0)
        portal.stop(0)
        return "stopped"

    assert portal.call(stops) == "stopped"
    thread_of(portal).join(PATIENCE)
    assert not thread_of(portal).is_alive()


# --- the end by accident ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [SystemExit, KeyboardInterrupt])
def test_a_waiter_wakes_when_the_loop_dies_under_it(
    portal: LoopThread, fault: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """
    What kills the loop is logged, everyone who waits gets HandlerClosed, and so does everyone who comes later.

    With a naive loop thread waiters and later calls hang, in silence.
    """
    begun = threading.Event()
    waiter = Caller(lambda: portal.call(for_ever, begun))
    assert begun.wait(PATIENCE)

    async def kills() -> None:
        raise fault

    portal.submit(kills)
    with pytest.raises(HandlerClosed):
        waiter.outcome()
    thread_of(portal).join(PATIENCE)
    assert f"the loop of a handler ended by {fault.__name__}" in caplog.text
    assert not portal.is_open
    with pytest.raises(HandlerClosed):
        portal.call(answer, 1)


def test_a_waiter_wakes_when_the_loops_clean_up_breaks_off(portal: LoopThread) -> None:
    """A coroutine that answers its cancellation with SystemExit ends the clean-up: who waits is told all the same."""
    begun = threading.Event()

    async def breaks() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise SystemExit from None

    waiter = Caller(lambda: portal.call(breaks))
    assert begun.wait(PATIENCE)
    portal.stop(0)
    with pytest.raises(HandlerClosed):
        waiter.outcome()


def test_nothing_is_taken_while_the_loop_tidies_up(portal: LoopThread) -> None:
    """From the moment in which the loop has stopped, whoever comes is refused, while others still end."""
    begun, released = threading.Event(), asyncio.Event()

    async def takes_its_time() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            begun.set()
            await released.wait()

    ending = portal.submit(takes_its_time)
    portal.call(answer, 1)
    server = portal._server
    assert server is not None
    server._loop.call_soon_threadsafe(server._loop.stop)
    assert begun.wait(PATIENCE)
    assert not portal.is_open
    with pytest.raises(HandlerClosed):
        portal.submit(answer, 1)
    with pytest.raises(HandlerClosed):
        server.submit(answer, 1)
    server._loop.call_soon_threadsafe(released.set)
    with pytest.raises((HandlerClosed, concurrent.futures.CancelledError)):
        ending.result(PATIENCE)
    server.thread.join(PATIENCE)


def test_a_portal_that_nobody_holds_ends_its_thread() -> None:
    """Losing the last reference rings the bell and waits for nothing: the thread says farewell and goes."""
    said: list[float] = []
    dropped = threading.Event()

    async def say(grace: float) -> None:
        dropped.wait(PATIENCE)  # a drop that waited for the thread would wait for itself here
        said.append(grace)

    portal = LoopThread(say)
    portal.call(answer, 1)
    thread = thread_of(portal)
    del portal
    gc.collect()
    assert said == []
    dropped.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert said == [_portal._EXIT_GRACE]


# --- the end of the interpreter, and forks ----------------------------------------------------------------------


def test_at_exit_nothing_rings_before_the_farewell(monkeypatch: pytest.MonkeyPatch, portal: LoopThread) -> None:
    """A portal that is still held as the interpreter exits is not rung then as one that nobody holds."""
    kept: list[Any] = []
    real = weakref.finalize

    def finalize(*args: Any) -> Any:
        kept.append(real(*args))
        return kept[0]

    with monkeypatch.context() as patch:
        patch.setattr(weakref, "finalize", finalize)
        portal.call(answer, 1)
    assert [each.atexit for each in kept] == [False]


def test_all_loops_end_together_at_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bell is rung before any thread is waited for, so that the farewells take their time side by side."""
    monkeypatch.setattr(_portal, "_SERVERS", set())
    monkeypatch.setattr(_portal, "_EXIT_GRACE", PATIENCE)
    barrier = threading.Barrier(3)

    async def meet(grace: float) -> None:
        barrier.wait(PATIENCE)  # a farewell that waited for the one before would never meet it

    portals = [LoopThread(meet) for _ in range(3)]
    for portal in portals:
        portal.call(answer, 1)
    _portal._say_farewell()
    assert not any(thread_of(portal).is_alive() for portal in portals)
    assert not barrier.broken
    assert not _portal._SERVERS


def test_those_who_are_waited_for_at_exit_share_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are rung for an exit; each is waited for as long as those before him have left, and the late not at all."""
    now, rung, waits = [100.0], [], []

    class Server:
        def ring(self, grace: float, *, at_exit: bool) -> None:
            rung.append((grace, at_exit))

        def join(self, seconds: float) -> None:
            waits.append(seconds)
            now[0] += 2.0

    monkeypatch.setattr(_portal, "_SERVERS", {Server() for _ in range(3)})
    monkeypatch.setattr(_portal, "_EXIT_GRACE", 3.0)
    monkeypatch.setattr(_portal, "time", SimpleNamespace(monotonic=lambda: now[0]))
    _portal._say_farewell()
    assert rung == [(3.0, True)] * 3
    assert waits == [3.0, 1.0, 0.0]


SCRIPT = """
import asyncio, os, sys, threading
from o3pro_bg import _forks, _portal
from o3pro_bg._portal import LoopThread
from o3pro_bg.errors import HandlerClosed

async def farewell(grace):
    print("farewell", grace, flush=True)

async def for_ever(begun):
    begun.set()
    try:
        await asyncio.Event().wait()
    finally:
        print("ended", flush=True)

async def answer(value):
    return value

begun = threading.Event()
_portal._CALLBACK_GRACE = 0.05
portal = LoopThread(farewell)
portal.submit(for_ever, begun)
begun.wait()
"""


def run_script(lines: str) -> subprocess.CompletedProcess[str]:
    """Run the script with these lines behind it in an interpreter of its own."""
    return subprocess.run(  # noqa: S603 - the script is the one above
        [sys.executable, "-W", "ignore", "-c", SCRIPT + textwrap.dedent(lines)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize(
    ("lines", "code", "complaint"),
    [
        ("", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("raise ValueError('mine')", 1, "ValueError: mine"),
        ("portal.stop(1.2)", 0, ""),
    ],
    ids=["end of script", "sys.exit", "exception", "after a stop"],
)
def test_the_interpreter_exits_with_a_farewell(lines: str, code: int, complaint: str) -> None:
    """
    However a script ends, the farewell is said once, what runs is ended properly, and we print nothing.

    A naive daemon thread is dropped in the middle of its work, and no `finally` of it runs.
    """
    done = run_script(lines)
    assert done.returncode == code
    assert done.stdout == "farewell 1.2\nended\n"
    assert done.stderr.strip().rpartition("\n")[2] == complaint
    assert "o3pro_bg" not in done.stderr


def test_the_interpreter_exits_though_farewells_hang() -> None:
    """All handlers' farewells share one bounded time; then the process goes."""
    done = run_script(
        """
        async def hang(grace):
            os.write(1, b"hangs\\n")  # `print` mixes the words of threads
            await asyncio.Event().wait()

        _portal._EXIT_GRACE = 1.0
        portals = [LoopThread(hang) for _ in range(3)]
        for each in portals:
            each.call(answer, 1)
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("hangs\n") == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_refused_at_once() -> None:
    """
    In the child submit, call and stop end at once, its exit says no farewell, and the parent goes on.

    A naive loop still says that it runs, in the child: the call hangs.
    """
    done = run_script(
        """
        child = os.fork()
        if child == 0:
            for use in (portal.submit, portal.call):
                try:
                    use(answer, 1)
                except HandlerClosed as exc:
                    print("refused:", exc, portal.is_open, flush=True)
            portal.stop(5)
            sys.exit(7)
        print("child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        print("parent", portal.call(answer, 42), flush=True)
        """
    )
    refused = f"refused: {_portal._closed()} False"
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        refused,
        refused,
        "child ended with 7",
        "parent 42",
        "farewell 1.2",
        "ended",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_portal_that_was_not_used_before_the_fork_works_in_the_child() -> None:
    """A handler that is made before the workers are forked starts its thread in each of them."""
    done = run_script(
        """
        unused = LoopThread(farewell)
        child = os.fork()
        if child == 0:
            print("child", unused.call(answer, 42), flush=True)
            unused.stop(1)
            os._exit(0)
        os.waitpid(child, 0)
        """
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["child 42", "farewell 1", "farewell 1.2", "ended"]


def test_a_forked_process_has_no_part_in_the_loops(monkeypatch: pytest.MonkeyPatch, portal: LoopThread) -> None:
    """What the loop of a parent has registered, and its epoll, lead nowhere in the child; it is kept for ever there."""
    lost: list[int] = []
    kept: list[object] = []
    monkeypatch.setattr(_portal, "disown", lost.extend)
    monkeypatch.setattr(_portal, "KEPT", kept)
    portal.call(answer, 1)
    server = portal._server
    assert server is not None
    monkeypatch.setattr(_portal, "_SERVERS", {server})
    _portal._disown()
    loop: Any = server._loop
    assert {loop._ssock.fileno(), loop._selector.fileno()} == {*lost}
    assert (kept, _portal._SERVERS) == ([server], set())


def test_a_forked_process_waits_for_no_lock(monkeypatch: pytest.MonkeyPatch, portal: LoopThread) -> None:
    """Who uses a loop from before the fork is refused, though its lock was taken then, and nobody gives it back."""
    portal.call(answer, 1)
    with monkeypatch.context() as patch, portal._lock:
        patch.setattr(portal._server, "_pid", 0)
        with pytest.raises(HandlerClosed):
            Caller(lambda: portal.submit(answer, 1)).outcome()


def test_a_fork_waits_for_what_the_loop_imports(monkeypatch: pytest.MonkeyPatch, portal: LoopThread) -> None:
    """What the first job needs is imported before it comes, as a whole: a child would inherit half an import."""
    imported: list[tuple[str, bool]] = []
    lock: Any = _forks._WHOLE[0]
    monkeypatch.setattr(_portal, "import_module", lambda name: imported.append((name, lock._is_owned())))
    portal.call(answer, 1)
    assert imported == [("anyio._backends._asyncio", True)]


def test_a_thread_that_cannot_start_is_a_closed_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the interpreter starts no thread any more, the caller is told, and no loop is left open, or waited for."""
    monkeypatch.setattr(_portal, "_SERVERS", set())

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(HandlerClosed):
            LoopThread(farewell).submit(answer, 1)
    gc.collect()  # an open loop would warn now
    assert not _portal._SERVERS


def test_a_ctrl_c_while_the_thread_starts_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `threading` has given a lock back and not taken it yet, it would become the RuntimeError of a free lock."""
    begin = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        begin(thread)
        started.append(thread)
        try:
            raise KeyboardInterrupt
        finally:
            threading.RLock().release()

    said: list[float] = []

    async def say(grace: float) -> None:
        said.append(grace)

    started: list[threading.Thread] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        portal = LoopThread(say)
        with pytest.raises(KeyboardInterrupt):
            portal.submit(answer, 1)
    started[0].join(PATIENCE)
    assert not started[0].is_alive()
    assert portal.call(answer, 42) == 42
    assert not said, "the farewell is for the thread that does the work"
    portal.stop(0)
    assert said == [0]


def test_a_loop_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too many files are open, say, the caller has the error itself, and the next call tries again."""

    def make() -> selectors.BaseSelector:
        raise OSError(errno.EMFILE, "Too many open files")

    portal = LoopThread(farewell)
    with monkeypatch.context() as patch:
        patch.setattr(selectors, "DefaultSelector", make)
        with pytest.raises(OSError, match="Too many open files"):
            portal.submit(answer, 1)
    assert portal.call(answer, 42) == 42
    portal.stop(0)


def test_at_exit_the_loop_runs_what_a_thread_pool_would_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A farewell as the interpreter exits has its host names looked up all the same: on the loop's own thread."""
    monkeypatch.setattr(_portal, "_SERVERS", set())
    monkeypatch.setattr(_portal, "_EXIT_GRACE", PATIENCE)
    ran: list[int] = []

    async def look_up(grace: float) -> None:
        ran.append(await asyncio.get_running_loop().run_in_executor(None, threading.get_ident))

    portals = [LoopThread(look_up) for _ in range(2)]
    for portal in portals:
        portal.call(answer, 1)
    portals[0].stop(0)
    thread_of(portals[0]).join(PATIENCE)
    _portal._say_farewell()
    assert ran[0] != thread_of(portals[0]).ident
    assert ran[1] == thread_of(portals[1]).ident


def test_what_runs_inline_is_done_at_once() -> None:
    """What would go to a thread pool runs at once, and its failure is its future's."""
    inline = _portal._Inline()
    assert inline.submit(divmod, 7, 2).result(0) == (3, 1)
    assert isinstance(inline.submit(divmod, 7, 0).exception(0), ZeroDivisionError)


def test_a_portal_that_is_stopped_while_its_thread_is_made_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler that stops a portal in the middle of its first use leaves no thread, and no time, behind."""
    said: list[float] = []

    async def say(grace: float) -> None:
        said.append(grace)

    portal = LoopThread(say)
    start = threading.Thread.start
    threads: list[threading.Thread] = []

    def start_and_stop(thread: threading.Thread) -> None:
        start(thread)
        threads.append(thread)
        portal.stop(0)  # as a signal handler on this very thread would

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_and_stop)
        with pytest.raises(HandlerClosed):
            portal.submit(answer, 1)
    threads[0].join(PATIENCE)
    assert not threads[0].is_alive()
    assert said == [0]
