"""
The demonstration behind `o3pro-bg demo`: the library against the emulator, in a few seconds, without an account.

A first process submits four jobs at once. One is refused with a 429 and waits as long as it is asked to, one is
cancelled, and while the others run the process is killed. A second one, which is this one, takes them up from the file
and prints their answers; then the emulator's own count shows that nothing was paid twice.

    _cast     what both processes know: the questions, and how a handler is made
    _first    the first process, which is killed
    _killing  starts it, shows what it tells, and kills it
    _second   what is done in its place
    _words    what is said
"""

from __future__ import annotations

import functools
import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg.demo._cast import QUESTIONS, Astray
from o3pro_bg.demo._killing import first_process
from o3pro_bg.demo._second import second_process
from o3pro_bg.demo._words import BEGINNING, REAL, Timeline, counted
from o3pro_bg.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Say = Callable[[str], object]

_print: Final = functools.partial(print, flush=True)


def run(say: Say = _print, *, as_json: bool = False) -> int:
    """
    Run the demonstration and answer the exit code: 0 where all went as it is told above, and 1 otherwise.

    Args:
        say: Is called with what happens, line by line.
        as_json: Say nothing but one JSON object at the end. It holds `emulator` (true), `endpoint`, `killed` (the id of
            the first process), `taken_up` (the ids of the jobs which the second one went on with), `jobs` (what
            `get_result` answers for each, and its `job_id`), `counts` (the emulator's), `paid`, `paid_twice`, and `ok`;
            and in `error` what went wrong, if something did.
    """
    tell: Say = (lambda _: None) if as_json else say
    told: dict[str, Any] = {"emulator": True, "ok": False}
    try:
        with _stage() as (emulator, path):
            told["endpoint"] = emulator.endpoint
            _play(emulator, path, told, tell)
        _judge(told)
        told["ok"] = True
    except Astray as astray:
        told["error"] = str(astray)
        tell(f"\nThis did not go as the demo of the emulator should: {astray}.\n")
    tell(REAL)
    if as_json:
        say(json.dumps(told))
    return 0 if told["ok"] else 1


@contextmanager
def _stage() -> Iterator[tuple[Emulator, Path]]:
    """Answer an emulator, and the path of a file in a directory of its own; both are gone in the end."""
    try:
        emulator = Emulator().start()
    except RuntimeError as trouble:
        raise Astray(str(trouble)) from None
    with emulator, tempfile.TemporaryDirectory(prefix="o3pro-bg-demo-", ignore_cleanup_errors=True) as folder:
        yield emulator, Path(folder) / "jobs.db"


def _play(emulator: Emulator, path: Path, told: dict[str, Any], say: Say) -> None:
    """Have both processes do their parts, and note what came of it."""
    say(BEGINNING.format(endpoint=emulator.endpoint))
    tell = Timeline(say)
    told["killed"], job_ids = first_process(emulator, path, tell)
    told["taken_up"], told["jobs"] = second_process(emulator, path, job_ids, tell, say)
    counts = told["counts"] = emulator.counters()
    told["paid"], told["paid_twice"] = counts["accepted"], len(counts["duplicates"])
    say(counted(counts, len(told["jobs"])))


def _judge(told: dict[str, Any]) -> None:
    """Raise `Astray` where something went otherwise than the demo tells."""
    checks = {
        "a job ended otherwise": [job["status"] for job in told["jobs"]] == [each.status for each in QUESTIONS],
        "an answer is missing": all(job["success"] for job in told["jobs"] if job["status"] == "completed"),
        "no job was under way as the first process was killed": bool(told["taken_up"]),
        "not each job was paid once": told["paid"] == len(QUESTIONS) and not told["paid_twice"],
        "no request was refused with a 429": told["counts"]["creates"] == told["paid"] + 1,
    }
    if wrong := [what for what, is_right in checks.items() if not is_right]:
        raise Astray(", and ".join(wrong))
