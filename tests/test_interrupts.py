"""
A Ctrl-C at any moment of a call: the handler serves on, and no job is left that nobody lives.

CPython looks for signals as a function begins, after each call, and as a loop goes round. Each of these moments of a
call is one in which the main thread may find itself in a `KeyboardInterrupt`; here it does, in one after the other.
"""

from __future__ import annotations

import _weakrefset
import dis
import functools
import gc
import itertools
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import BackgroundHandler, DbosEngine, _portal

from .faces import FOREVER, QUICK, fake
from .peers import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import CodeType, FrameType

# What is raised there, nobody hears: the interpreter itself calls it, and goes on.
UNHEARD = (weakref.__file__, _weakrefset.__file__)
LOOKS = ("CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD")


@functools.cache
def moments(code: CodeType) -> frozenset[int]:
    """
    Answer the offsets of the instructions before which signals are looked for.

    Not those before a `with` is left: the signal is met in the `with` there, and the tracer would be out of it.
    """
    bytecode: Any = dis.Bytecode(code)

    def catching(offset: int) -> list[int]:
        return [entry.target for entry in bytecode.exception_entries if entry.start <= offset < entry.end]

    return frozenset(
        after.offset
        for before, after in itertools.pairwise(bytecode)
        if before.opname in LOOKS and catching(after.offset - 2) == catching(after.offset)
    )


def interrupted(call: Callable[[], object], moment: int) -> bool:
    """Raise KeyboardInterrupt in this moment of a call, and suppress it; False where the call has fewer moments."""
    left = moment

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename in UNHEARD:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in moments(frame.f_code):
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    tracer = sys.gettrace()  # a measurement of coverage, say
    gc.disable()  # it would call what else is let go of
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(tracer)
        gc.enable()
    return left < 0


def in_each_moment(call: Callable[[int], object]) -> int:
    """Interrupt the call, which is given a number, in one of its moments after the other; answer how many it has."""
    interrupted(lambda: None, 0)  # CPython 3.12 traces instructions from the second time on that they are asked for
    for moment in itertools.count():
        if not interrupted(functools.partial(call, moment), moment):
            break
    return moment


def statuses(handler: BackgroundHandler) -> set[str]:
    """Answer in which states the handler's jobs are."""
    return {job["status"] for job in handler.list_active_jobs()}


def serves_on(handler: BackgroundHandler) -> None:
    """See a new job begin, and end: a loop or a store that waits for a lock would not answer."""
    last: list[bool] = []
    user = threading.Thread(target=lambda: last.append(handler.submit("the last").cancel()), daemon=True)
    user.start()
    user.join(10)
    assert last == [True]


@pytest.fixture
def handler(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BackgroundHandler]:
    """A handler at work, whose jobs never end."""
    ways: dict[str, dict[str, Any]] = {
        "memory": {},
        "file": {"store": tmp_path / "jobs.db"},
        "database": {"engine": DbosEngine(f"sqlite:///{tmp_path}/jobs.db", poll=0.02)},
    }
    with BackgroundHandler(fake(seconds=FOREVER), pace=QUICK, **ways[request.param]) as handler:
        assert handler.submit("the first").cancel()
        yield handler


@pytest.mark.parametrize(
    ("handler", "kind"),
    [*itertools.product(["memory", "file"], ["plain", "with a key", "attached"]), ("database", "plain")],
    indirect=["handler"],
)
def test_a_start_that_is_interrupted_leaves_nothing_half_done(handler: BackgroundHandler, kind: str) -> None:
    """No job that nobody lives is left; who gave the same key or response may wait for a job, so that is run."""

    def start(number: int) -> None:
        if kind == "attached":
            handler.attach(f"resp_of_another_{number}")
        else:
            handler.submit("q", dedupe_key=f"key {number}" if kind == "with a key" else None)

    assert in_each_moment(start) > 100
    until(lambda: "started" not in statuses(handler))
    assert not handler._engine.expected
    for job in handler.list_active_jobs():
        handler.cancel_job(job["job_id"])
    serves_on(handler)


@pytest.mark.parametrize("handler", ["memory", "file"], indirect=True)
@pytest.mark.parametrize("verb", ["cancel", "wait", "remove", "call back", "check"])
def test_a_call_that_is_interrupted_keeps_nobody(
    handler: BackgroundHandler, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop and the store serve on after an interrupt of whatever call."""
    monkeypatch.setattr(_portal, "_PATIENCE", 0.0005)  # a wait is long
    job = handler.submit("q")

    def wait(job_id: str) -> None:
        with suppress(TimeoutError):
            handler.wait(job_id, 0.001)

    verbs: dict[str, Callable[[str], object]] = {
        "cancel": handler.cancel_job,
        "wait": wait,
        "remove": handler.remove_job,
        "call back": lambda _: job.add_done_callback(repr),
        "check": handler.check_status,
    }
    if verb == "remove":
        assert job.cancel()
    assert in_each_moment(lambda _: verbs[verb](job.id)) > 10
    serves_on(handler)


FIRST = """
import itertools, os
from tests.test_interrupts import QUICK, BackgroundHandler, fake, interrupted

interrupted(lambda: None, 0)
for moment in itertools.count():
    handler = BackgroundHandler(fake(seconds=0), pace=QUICK)
    was_interrupted = interrupted(lambda: handler.submit("first"), moment)
    assert handler.submit("second").result(10), moment
    handler.close()
    if not was_interrupted:
        break
print(moment > 200, flush=True)
os._exit(0)  # some threads of the interpreter's own were interrupted as they started
"""


def test_a_first_call_that_is_interrupted_is_followed_by_others() -> None:
    """Whatever has become of the loop that was about to start, the next job is completed."""
    command = [sys.executable, "-W", "ignore", "-c", FIRST]  # of sockets that were half made
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - of this file
    assert told.stdout == "True\n", told.stderr
