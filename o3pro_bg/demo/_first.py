"""
The first process of the demo: it submits the jobs, tells what becomes of them, and is killed.

Run as `python -m o3pro_bg.demo._first FILE`, with the emulator in the environment as an account is. It prints a line of
JSON for each change of a job: its `number`, from 0 on, its `job_id`, its `effort`, its `status`, and what it waits for,
in `waiting`. It never ends by itself, but with its standard input: whoever started it holds the other end.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from o3pro_bg.demo._cast import ANSWERED, CANCELLED, GLANCE, QUESTIONS, handler_of

if TYPE_CHECKING:
    from o3pro_bg import Job


def main(path: str) -> None:
    """Submit the jobs, cancel one when another has completed, and wait to be killed."""
    threading.Thread(target=_end_with_the_input, name="parent-watch", daemon=True).start()
    account = os.environ["AZURE_OPENAI_ENDPOINT"], os.environ["AZURE_OPENAI_API_KEY"]
    handler = handler_of(*account, path)
    jobs, said = [], []
    for number, each in enumerate(QUESTIONS):
        jobs.append(handler.submit(each.text, each.effort, metadata={"emulator": each.knobs}))
        said.append(("started", ""))
        _tell(number, jobs[number], *said[number])
    is_cancelling = False
    while True:
        for number, job in enumerate(jobs):
            if (state := (job.status(), job.waiting)) != said[number]:
                said[number] = state
                _tell(number, job, *state)
        if jobs[ANSWERED].done() and not is_cancelling:
            is_cancelling = True
            _tell(CANCELLED, jobs[CANCELLED], "cancelling ...")
            jobs[CANCELLED].cancel()
        time.sleep(GLANCE)


def _tell(number: int, job: Job, status: str, waiting: str = "") -> None:
    line = {"number": number, "job_id": job.id, "effort": job.effort, "status": status, "waiting": waiting}
    try:
        print(json.dumps(line), flush=True)
    except OSError:  # whoever read us has gone
        os._exit(1)


def _end_with_the_input() -> None:
    while os.read(0, 1024):  # not sys.stdin: its lock would be held at exit
        pass
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
