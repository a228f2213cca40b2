"""However a process with a store ends, the next one has every job; and README's table is true, line by line."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from o3pro_bg import BackgroundHandler, O3ProClient, O3ProConfig, SqliteStore

from .faces import QUICK

if TYPE_CHECKING:
    from o3pro_bg.emulator import Emulator

SCRIPT = """
import os, signal, sys, time
from o3pro_bg import BackgroundHandler, O3ProClient, O3ProConfig, Pace, SqliteStore

store = SqliteStore(sys.argv[1], lease=0.5)
handler = BackgroundHandler(
    O3ProClient(O3ProConfig()), store=store, max_concurrency=2, pace=Pace(floor=0.01, ceiling=0.02)
)
jobs = [handler.submit(f"question {number}") for number in range(3)]
while sum(job.response_id is not None for job in jobs) < 2:
    time.sleep(0.01)
print(*(job.id for job in jobs), flush=True)
"""

ASYNC_SCRIPT = """
import asyncio, os, signal, sys
from o3pro_bg import AsyncBackgroundHandler, O3ProClient, O3ProConfig, Pace, SqliteStore

async def main():
    store = SqliteStore(sys.argv[1], lease=0.5)
    handler = AsyncBackgroundHandler(
        O3ProClient(O3ProConfig()), store=store, max_concurrency=2, pace=Pace(floor=0.01, ceiling=0.02)
    )
    jobs = [await handler.submit(f"question {number}") for number in range(3)]
    while sum(job.response_id is not None for job in jobs) < 2:
        await asyncio.sleep(0.01)
    print(*(job.id for job in jobs), flush=True)
    ENDING

asyncio.run(main())
"""

ENDINGS = {
    "the script ends": ("", 0),
    "it closes its handler": ("handler.close()", 0),
    "it drops its handler": ("del handler, jobs", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise ValueError('mine')", 1),
    "Ctrl-C during a wait": ("handler.wait_all()", -signal.SIGINT),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    "os._exit": ("os._exit(7)", 7),
}
ASYNC_ENDINGS = {
    "asyncio.run ends": ("", 0),
    "it closes its handler": ("await handler.aclose()", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise ValueError('mine')", 1),
    "Ctrl-C during a wait": ("await handler.wait_all()", -signal.SIGINT),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
}
CASES = [
    *[(name, SCRIPT + ending, code) for name, (ending, code) in ENDINGS.items()],
    *[(f"async: {name}", ASYNC_SCRIPT.replace("ENDING", end), code) for name, (end, code) in ASYNC_ENDINGS.items()],
]


def environment_of(emulator: Emulator) -> dict[str, str]:
    """Answer what points a client to the emulator."""
    return {"AZURE_OPENAI_ENDPOINT": emulator.endpoint, "AZURE_OPENAI_API_KEY": emulator.api_key}


@pytest.mark.parametrize(("script", "code"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_next_process_has_every_job(o3pro_emulator: Emulator, tmp_path: Path, script: str, code: int) -> None:
    """Jobs under way run on at the service and are finished, those that were not sent are sent, nothing twice."""
    o3pro_emulator.set_knobs("seconds=30 queued=0")
    environment = {**os.environ, **environment_of(o3pro_emulator)}
    process = subprocess.Popen(  # noqa: S603 - a script of this file
        [sys.executable, "-c", script, str(tmp_path / "jobs.db")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        told = process.stdout.readline().split()
        assert len(told) == 3
        if code == -signal.SIGINT:
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == code, said
    assert "o3pro_bg store" not in said
    counters = o3pro_emulator.counters()
    assert (counters["accepted"], counters["cancels"]) == (2, 0), "the third one waits for its turn"
    o3pro_emulator.set_knobs("seconds=0.1 queued=0")
    client = O3ProClient(O3ProConfig(endpoint=o3pro_emulator.endpoint, api_key=o3pro_emulator.api_key))
    with BackgroundHandler(client, store=SqliteStore(tmp_path / "jobs.db", lease=0.5), pace=QUICK) as successor:
        assert [job["job_id"] for job in successor.list_active_jobs()] == told
        for job_id in told[:2]:
            successor.cancel_job(job_id)  # the emulator gives a response its length as it is created
        assert successor.wait(told[2], timeout=20)["success"]
    assert o3pro_emulator.counters()["accepted"] == 3
    assert o3pro_emulator.counters()["duplicates"] == {}


LEAVING = """
import asyncio, sys
import openai  # which on a busy machine alone takes the seconds that leaving has
from o3pro_bg import AsyncBackgroundHandler, BackgroundHandler, O3ProClient, O3ProConfig

client = O3ProClient(O3ProConfig())
"""
WAYS_TO_LEAVE = {
    "with": "with BackgroundHandler(client, store=sys.argv[1]) as handler: handler.submit('q')",
    "async with": """
async def main():
    async with AsyncBackgroundHandler(client, store=sys.argv[1]) as handler:
        await handler.submit('q')

asyncio.run(main())
""",
}


def run(script: str, emulator: Emulator, path: Path) -> str:
    """Run a script over this file, and answer what it prints."""
    environment = {**os.environ, **environment_of(emulator)}
    command = [sys.executable, "-c", script, str(path)]
    return subprocess.check_output(command, env=environment, text=True, timeout=30)  # noqa: S603 - a script of this file


@pytest.mark.parametrize("way", WAYS_TO_LEAVE)
def test_who_starts_a_job_and_leaves_has_sent_it(o3pro_emulator: Emulator, tmp_path: Path, way: str) -> None:
    """A script that does nothing but start a job has its question at the service when it ends, and running there."""
    path = tmp_path / "jobs.db"
    run(LEAVING + WAYS_TO_LEAVE[way], o3pro_emulator, path)
    counters = o3pro_emulator.counters()
    assert (counters["accepted"], counters["cancels"]) == (1, 0)
    client = O3ProClient(O3ProConfig(endpoint=o3pro_emulator.endpoint, api_key=o3pro_emulator.api_key))
    with BackgroundHandler(client, store=path, pace=QUICK) as successor:
        assert all(reply["success"] for reply in successor.wait_all(timeout=20).values())
    assert o3pro_emulator.counters()["accepted"] == 1


FORGETFUL = (
    LEAVING
    + """
held = []

async def main():
    handler = AsyncBackgroundHandler(client, store=sys.argv[1])
    KEEPING
    job = await handler.submit("q")
    while job.response_id is None:
        await asyncio.sleep(0.01)
    return job.id

job_id = asyncio.run(main())
with BackgroundHandler(client, store=sys.argv[1]) as successor:
    print(successor.wait(job_id, timeout=20)["success"])
"""
)


@pytest.mark.parametrize("keeping", ["", "held.append(handler)"])
def test_a_loop_that_has_ended_keeps_no_job(o3pro_emulator: Emulator, tmp_path: Path, keeping: str) -> None:
    """A handler that was not closed lets go of its jobs when its loop ends, though its process lives."""
    o3pro_emulator.set_knobs("seconds=1 queued=0")
    said = run(FORGETFUL.replace("KEEPING", keeping), o3pro_emulator, tmp_path / "jobs.db")
    assert said.split() == ["True"]
    assert o3pro_emulator.counters()["accepted"] == 1


# The tests that hold each line of README's table: in memory, and with a store.
LINES = {
    "a wait runs out of time": (
        "test_faces.test_wait_times_out_and_leaves_the_job_alone",
        "test_aio.test_a_cancelled_waiter_leaves_the_job_alone",
        "test_handler.test_ctrl_c_in_a_wait_leaves_the_job_alone",
    ),
    "Ctrl-C during a start": ("test_interrupts.test_a_start_that_is_interrupted_leaves_nothing_half_done",),
    "the connection breaks": ("test_end_to_end.test_looks_outlive_faults",),
    "the service answers 429": ("test_end_to_end.test_429_is_waited_out",),
    "the service cannot be reached": (
        "test_end_to_end.test_unreachable_service_is_shown_and_can_be_cancelled",
        "test_life.test_a_job_fails_after_two_minutes_without_a_connection",
        "test_durability.test_close_during_a_create_that_never_arrives",
    ),
    "the answer to the start is lost": (
        "test_end_to_end.test_uncertain_creates_are_not_repeated",
        "test_end_to_end.test_uncertain_creates_are_repeated_where_asked",
    ),
    "the service no longer has the response": ("test_end_to_end.test_lost_responses_end",),
    "the handler is closed": (
        "test_handler.test_the_end_of_the_interpreter_cancels",
        "test_survival.test_the_next_process_has_every_job",
        "test_survival.test_who_starts_a_job_and_leaves_has_sent_it",
        "test_survival.test_a_loop_that_has_ended_keeps_no_job",
        "test_store_faces.test_settings_decide_what_closing_does",
    ),
    "the process is killed": (
        "test_faces.test_continuation_token_takes_the_job_up_elsewhere",
        "test_survival.test_the_next_process_has_every_job",
        "test_processes.test_holder_is_killed",
    ),
    "… before the question has left": ("test_kills.test_killed_at_a_step",),
    "… while the question leaves": ("test_kills.test_killed_at_a_step",),
    "… after the answer came": ("test_kills.test_killed_at_a_step",),
    "the process is stopped for a while": (
        "test_processes.test_holder_is_stopped_and_the_job_ends",
        "test_processes.test_holder_is_stopped_and_the_job_goes_on",
    ),
    "the disk is full": (
        "test_disk_faults.test_handler_on_a_full_disk",
        "test_disk_faults.test_lock_of_another_process",
        "test_disk_faults.test_read_only_disk",
    ),
    "the file is deleted or replaced": ("test_disk_faults.test_handler_whose_file_goes_away",),
    "bytes of the file are damaged": ("test_disk_faults.test_flipped_bytes",),
}


def test_each_line_of_the_table_is_tested() -> None:
    """No line stands in README's table without the tests that hold it, and none of these has gone."""
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## What survives what")[2].partition("## ")[0]
    lines = re.findall(r"^\| (?!what happens|-)([^|]+) \|", table, flags=re.MULTILINE)
    assert [next((key for key in LINES if line.startswith(key)), line) for line in lines] == list(LINES)
    for names in LINES.values():
        for name in names:
            module, _, test = name.partition(".")
            assert hasattr(importlib.import_module(f"tests.{module}"), test), name
