"""`ask` and `submit`: a question becomes a job, and its answer is waited for, or not."""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg._admission import Refused, admit
from o3pro_bg._shown import duration
from o3pro_bg.cli._exits import Exit, Stop, of_status
from o3pro_bg.cli._place import database_of, handler_of, language
from o3pro_bg.cli._reading import tell_result
from o3pro_bg.cli._screen import is_live, live, put, put_json, say
from o3pro_bg.cli._watching import state_of, ticks
from o3pro_bg.cli._words import spent, why
from o3pro_bg.errors import JobNotFound

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from o3pro_bg._replies import StartReply
    from o3pro_bg.config import O3ProConfig
    from o3pro_bg.handler import BackgroundHandler
    from o3pro_bg.job import Job

_SECOND_THOUGHT: Final = 2.0  # seconds in which a second Ctrl-C cancels
_TO_LEAVE: Final = 30.0  # seconds in which a question should have been accepted


def ask(arguments: argparse.Namespace) -> Exit:
    """Ask, wait, and print the answer."""
    question = text_of(arguments.question)
    with Presses() as presses, handler_of(arguments) as handler:
        started = _start(handler, question, arguments)
        say(f"job {started['job_id']}")
        return wait_for(handler, started["job_id"], arguments, presses)


def submit(arguments: argparse.Namespace) -> Exit:
    """Ask, print the id, and go as soon as the service has the question, or a database keeps it for a worker."""
    question = text_of(arguments.question)
    leaves_here = database_of(arguments) is None
    with handler_of(arguments) as handler:
        started = _start(handler, question, arguments)
        put_json(started) if arguments.json else put(started["job_id"])
        job = handler.job(started["job_id"])
        until = time.monotonic() + (_TO_LEAVE if leaves_here else 0)
        while job.response_id is None and not job.done() and time.monotonic() < until:
            time.sleep(0.02)
        reply = handler.check_status(job.id)
        if leaves_here and job.response_id is None and not job.done():
            reason = why(job.waiting) or "it is on its way"
            say(f"the question has not been accepted yet ({reason}): `o3pro-bg watch` sends it")
        if "error" in reply:
            say(f"o3pro-bg: {reply['error']}")
        return of_status(reply["status"]) if job.done() else Exit.COMPLETED


def wait_for(handler: BackgroundHandler, job_id: str, arguments: argparse.Namespace, presses: Presses) -> Exit:
    """Wait for a job, show how it goes, and print its answer; the first Ctrl-C leaves it, a second one cancels it."""
    job = handler.job(job_id)
    try:
        _follow(job, time.monotonic() + arguments.timeout if arguments.timeout is not None else None)
    except TimeoutError:
        say(f"o3pro-bg: not finished within {arguments.timeout:g} s; it goes on: {_come_back(job)}")
        return Exit.TIMED_OUT
    except KeyboardInterrupt:
        return _interrupted(job, presses)
    except JobNotFound:  # another process removed it
        return tell_result(handler.get_result(job_id), as_json=arguments.json)
    if took := spent(job.usage, job.cost):
        say(f"{job.status()} after {duration(job.elapsed_time)}: {took}")
    return tell_result(handler.get_result(job_id), as_json=arguments.json)


class Presses:
    """
    Counts how often Ctrl-C is pressed: the first time is a KeyboardInterrupt, later ones do not disturb what follows.

    Attributes:
        count: How often it was pressed.
    """

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _pressed(self, *_: object) -> None:
        self.count += 1
        if self.count == 1:
            raise KeyboardInterrupt


def _start(handler: BackgroundHandler, question: str, arguments: argparse.Namespace) -> StartReply:
    """Start the job; raises `Stop` where it is refused."""
    options = options_of(arguments)
    more: Any = {
        "timeout": arguments.deadline,
        "dedupe_key": arguments.dedupe_key,
        "priority": arguments.priority,
    }
    check(handler.client.config, question, arguments.effort, options, more)
    started = handler.start_background_task(question, arguments.effort, **more, **options)
    if not started["success"]:  # it could not be written down
        raise Stop(Exit.CONFIGURATION, started["error"], started)
    return started


def check(
    config: O3ProConfig,
    question: str,
    effort: str,
    options: Mapping[str, Any],
    more: Mapping[str, Any],
    where: str = "",
) -> None:
    """Raise `Stop` where the library would refuse a question, or some argument is no such thing at all."""
    try:
        admit(config, question, effort, options=options, **more)
    except Refused as refused:
        sentence = refused.sentence(language())
        reply = {"success": False, "error": sentence, "question": question, "effort": effort}
        raise Stop(Exit.USAGE, where + sentence, reply) from None
    except TypeError as exc:
        raise Stop(Exit.USAGE, f"{where}{exc}") from None


def text_of(given: str) -> str:
    """Answer the text that an argument means: itself, standard input for `-`, or a file's for `@file`."""
    if given == "-":
        return _decoded(_standard_input(), "standard input")
    if given.startswith("@"):
        try:
            return _decoded(Path(given[1:]).read_bytes(), given[1:])
        except OSError as exc:
            raise Stop(Exit.USAGE, f"{given} cannot be read: {exc.strerror}") from None
    return given


def _standard_input() -> bytes:
    """Read standard input, which can be had once."""
    if sys.stdin.closed:
        raise Stop(Exit.USAGE, "standard input can be read once, and was asked for again")
    if sys.stdin.isatty():
        say("reading from the terminal; Ctrl-D ends it")
    with sys.stdin:
        return sys.stdin.buffer.read()


def _decoded(data: bytes, whence: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Stop(Exit.USAGE, f"{whence} is no UTF-8 text") from None


def options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Answer the further arguments of the Responses API: a value is JSON, or else a text."""
    options: dict[str, Any] = {}
    for name, value in arguments.option or ():
        try:
            options[name] = json.loads(value)
        except (ValueError, RecursionError):
            options[name] = value
    if arguments.instructions is not None:
        options["instructions"] = text_of(arguments.instructions)
    if arguments.max_output_tokens is not None:
        options["max_output_tokens"] = arguments.max_output_tokens
    return options


def _follow(job: Job, until: float | None) -> None:
    """Show how the job goes until it has ended; raises TimeoutError once it is that late."""
    said = ""
    with _drawn(job) as draw:
        for _ in ticks([job], until):
            if draw is not None:
                draw()
            elif (state := state_of(job)) != said:
                said = state
                say(f"{duration(job.elapsed_time):>11}  {state}")


@contextmanager
def _drawn(job: Job) -> Iterator[Callable[[], None] | None]:
    """Answer what draws the state of the job anew, where somebody can see it."""
    if not is_live():
        yield None
        return
    from o3pro_bg.cli._pictures import OneJob

    picture = OneJob(job)
    with live() as show:
        yield lambda: show(picture.draw())


def _interrupted(job: Job, presses: Presses) -> Exit:
    """Leave the job, and say how to come back; cancel it where Ctrl-C comes again."""
    until = time.monotonic() + _SECOND_THOUGHT
    say(f"left: it goes on; {_come_back(job)}\nCtrl-C again within {_SECOND_THOUGHT:g} s cancels it")
    while presses.count == 1 and time.monotonic() < until:
        time.sleep(0.02)
    if presses.count == 1:
        return Exit.INTERRUPTED
    say("cancelling ...")
    if job.cancel():
        say("cancelled")
        return Exit.CANCELLED
    say(f"o3pro-bg: not cancelled: it is {job.status()}")
    return Exit.INTERRUPTED


def _come_back(job: Job) -> str:
    return f"come back with `o3pro-bg result --wait {job.id[:8]}`"
