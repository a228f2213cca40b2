"""Starts the first process of the demo, shows what it tells, and kills it in the midst of its work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final, cast

from o3pro_bg._children import import_path
from o3pro_bg.demo._cast import ANSWERED, CANCELLED, HELD, PATIENCE, QUESTIONS, Astray
from o3pro_bg.demo._words import line_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from o3pro_bg.demo._words import Timeline
    from o3pro_bg.emulator import Emulator

_KILLED: Final = -getattr(signal, "SIGKILL", -1)  # where there are no signals, such a process exits with 1
_ENDED: Final = frozenset({"completed", "failed", "cancelled"})


def first_process(emulator: Emulator, path: Path, tell: Timeline) -> tuple[int, list[str]]:
    """
    Start the first process, tell what it does, and kill it once its part is done.

    Returns:
        The id of the process, and those of its jobs in the order of the questions.

    Raises:
        Astray: It ended by itself, or did not get so far in a minute.
    """
    emulator.set_knobs(HELD)
    with _started(emulator, path) as process:
        tell(f"process {process.pid} starts {len(QUESTIONS)} jobs, which it keeps in a file")
        job_ids, left = _shown(process, tell)
    if process.returncode != _KILLED:
        raise Astray(f"the first process ended by itself, with {process.returncode}")
    emulator.set_knobs("")
    tell(f"process {process.pid} was killed (SIGKILL) with {left} of its jobs under way")
    return process.pid, job_ids


@contextmanager
def _started(emulator: Emulator, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Answer the first process, which is killed in the end, and ends as well if this one does."""
    account = {"AZURE_OPENAI_ENDPOINT": emulator.endpoint, "AZURE_OPENAI_API_KEY": emulator.api_key}
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module, and no shell
        [sys.executable, "-P", "-m", "o3pro_bg.demo._first", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, **import_path(), **account},
        start_new_session=True,  # Ctrl-C is for us, who kill it then; on Windows it is the next line that says so
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _shown(process: subprocess.Popen[str], tell: Timeline) -> tuple[list[str], int]:
    """Tell what the process says until its part is done; answer the ids of its jobs, and how many have not ended."""
    job_ids, states = [""] * len(QUESTIONS), [""] * len(QUESTIONS)
    # A kill ends the read below: there is no portable way to read a pipe with a time-out.
    late = threading.Timer(PATIENCE, process.kill)
    late.daemon = True
    late.start()
    try:
        for line in cast("IO[str]", process.stdout):
            change = json.loads(line)
            tell(line_of(change["job_id"], change["effort"], change["status"], change["waiting"]))
            job_ids[change["number"]], states[change["number"]] = change["job_id"], change["status"]
            if _is_done(states):
                return job_ids, sum(state not in _ENDED for state in states)
    finally:
        late.cancel()
    raise Astray(f"the first process ended by itself, or did not do its part in {PATIENCE:g} s")


def _is_done(states: list[str]) -> bool:
    """Tell whether the process has done its part: one job answered, one cancelled, and no question on its way."""
    return {states[ANSWERED], states[CANCELLED]} <= _ENDED and {*states} <= {"running", *_ENDED}
