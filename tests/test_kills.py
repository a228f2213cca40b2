"""A process killed with SIGKILL at each step of its journal: no job is lost, and none is paid twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import BackgroundHandler, O3ProClient, O3ProConfig, SqliteStore

from .faces import QUICK
from .victim import STEPS

if TYPE_CHECKING:
    from pathlib import Path

    from o3pro_bg.emulator import Emulator

LEASE = 0.5

# What the next process makes of a job, and how many creates the service took for it by then.
AFTERMATH = {
    "before the intent is written": (None, 0),
    "after the intent is written": ("completed", 1),
    "before it is written that the create leaves": ("completed", 1),
    "after it is written that the create leaves": ("failed", 0),
    "while the create is under way": ("failed", 1),
    "after the create was accepted": ("failed", 1),
    "after the response id is written": ("completed", 1),
    "before a look": ("completed", 1),
    "after a look": ("completed", 1),
    "before the result is written": ("completed", 1),
    "after the result is written": ("completed", 1),
}


@pytest.fixture
def emulator(service: Emulator) -> Emulator:
    """The emulator with counters at zero, whose jobs take 0.3 seconds."""
    service.reset()
    service.set_knobs("seconds=0.3 queued=0")
    return service


def start(emulator: Emulator, store: Path, **settings: Any) -> subprocess.Popen[str]:
    """Start a victim."""
    facts = {"endpoint": emulator.endpoint, "api_key": emulator.api_key, "store": str(store), "lease": LEASE}
    command = [sys.executable, "-m", "tests.victim", json.dumps({**facts, **settings})]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - a module of these tests


def successor(emulator: Emulator, store: Path, **settings: Any) -> BackgroundHandler:
    """Open the store in this process."""
    client = O3ProClient(O3ProConfig(endpoint=emulator.endpoint, api_key=emulator.api_key))
    return BackgroundHandler(
        client, store=SqliteStore(store, lease=LEASE), pace=QUICK, language="en", lost_after=0.2, **settings
    )


def killed(emulator: Emulator, store: Path, step: str, **settings: Any) -> list[str]:
    """Have a victim die at this step, and answer the ids that it was told."""
    if step.startswith("while"):
        emulator.set_knobs("seconds=0.3 queued=0 latency=0.6")
    victim = start(emulator, store, step=step, **settings)
    told, _ = victim.communicate(timeout=30)
    assert victim.returncode == -signal.SIGKILL
    emulator.set_knobs("seconds=0.3 queued=0")
    return told.split()


def test_every_step_has_its_aftermath() -> None:
    """No step at which the victim can die is left out here."""
    assert {*STEPS} == {*AFTERMATH}


@pytest.mark.parametrize("face", ["sync", "async"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step(emulator: Emulator, tmp_path: Path, step: str, face: str) -> None:
    """The next process has the job: finished, or sent for the first time, or failed because it may have been paid."""
    status, creates = AFTERMATH[step]
    told = killed(emulator, tmp_path / "jobs.db", step, face=face)
    with successor(emulator, tmp_path / "jobs.db") as handler:
        assert {*told} <= {*handler.jobs}, "a job whose id was told is there"
        results = handler.wait_all(timeout=30)
        assert [result["status"] for result in results.values()] == [status] * (status is not None)
        if status == "failed":
            job = handler.job(next(iter(results)))
            assert job._record.failure is not None
            assert job._record.failure.code == "submission_uncertain"
    assert emulator.counters()["accepted"] == creates
    assert emulator.counters()["duplicates"] == {}


@pytest.mark.parametrize("step", ["after it is written that the create leaves", "after the create was accepted"])
def test_uncertain_create_is_repeated_where_the_user_opted_in(emulator: Emulator, tmp_path: Path, step: str) -> None:
    """With `resubmit_uncertain=True` the next process asks again, and the job completes."""
    killed(emulator, tmp_path / "jobs.db", step)
    accepted = emulator.counters()["accepted"]
    with successor(emulator, tmp_path / "jobs.db", resubmit_uncertain=True) as handler:
        (result,) = handler.wait_all(timeout=30).values()
    assert result["status"] == "completed"
    assert emulator.counters()["accepted"] == accepted + 1


def test_killed_at_random_moments(emulator: Emulator, tmp_path: Path) -> None:
    """Processes killed one after the other over one store lose no job that was told, and pay for none twice."""
    luck = random.Random(7)
    told: list[str] = []
    for _ in range(8):
        victim = start(emulator, tmp_path / "jobs.db", jobs=0)
        assert victim.stdout is not None
        told += [victim.stdout.readline().strip() for _ in range(luck.randrange(1, 40))]
        victim.kill()
        told += victim.communicate(timeout=30)[0].split()
    with successor(emulator, tmp_path / "jobs.db") as handler:
        results = handler.wait_all(timeout=60)
        records = [handler.job(job_id)._record for job_id in results]
    assert {*told} <= {*results}
    assert emulator.counters()["duplicates"] == {}
    failures = [record.failure.code for record in records if record.failure is not None]
    assert {*failures} <= {"submission_uncertain"}
    completed = sum(result["success"] for result in results.values())
    assert completed <= emulator.counters()["accepted"] <= completed + len(failures)
