"""`o3pro-bg worker`, and the verbs that take `--database`: they tell what workers, on any host, make of the jobs."""

from __future__ import annotations

import json
import re
import signal
import sys
from typing import TYPE_CHECKING

import httpx2
import pytest

from o3pro_bg.cli._exits import Exit

from .terminal import Account, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from o3pro_bg.emulator import Emulator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a worker is ended by POSIX's signals")


@pytest.fixture
def account(o3pro_emulator: Emulator, tmp_path: Path) -> Account:
    """A home of the command, and an account at the emulator."""
    return Account(tmp_path / "home", o3pro_emulator)


def test_a_worker_lives_what_others_submit(account: Account, o3pro_emulator: Emulator, tmp_path: Path) -> None:
    """What is submitted is kept for a worker; one answers it, until SIGTERM, with which it hands over what is left."""
    o3pro_emulator.set_knobs("seconds=0.5 queued=0")
    place = ("--database", f"sqlite:///{tmp_path}/shared.db")
    code, out, err = account.says("submit", "Why?", *place)
    assert (code, err) == (0, "")
    job_id = out.strip()
    code, out, _ = account.says("list", "--json", *place)
    assert [(job["job_id"], job["status"]) for job in json.loads(out)] == [(job_id, "started")]
    worker = account.start("worker", *place, "--concurrency", "2")
    try:
        code, out, err = account.says("result", job_id[:8], "--wait", *place)
        assert (code, "[emulator]" in out) == (0, True), err
        code, out, _ = account.says("watch", job_id, "--json", *place)
        assert (code, json.loads(out.splitlines()[-1])["status"]) == (0, "completed")
        o3pro_emulator.set_knobs("seconds=60 queued=0")
        later = account.says("submit", "Why later?", *place)[1].strip()
        assert account.says("cancel", later, *place)[0] == 0
    finally:
        worker.send_signal(signal.SIGTERM)
        _, said = worker.communicate(timeout=30)
    assert worker.returncode == 128 + signal.SIGTERM
    assert b"working for sqlite" in said
    assert b"Traceback" not in said
    assert account.says("status", later, *place)[1].split()[1] == "cancelled"


def test_serve_answers_for_jobs_that_a_worker_lives(account: Account, tmp_path: Path) -> None:
    """What comes in over HTTP waits for a worker, whose answer goes out over HTTP; `serve` lives no jobs itself."""
    account.environment["O3PRO_BG_DATABASE"] = f"sqlite:///{tmp_path}/shared.db"
    serving = account.start("serve", "--port", "0")
    worker = None
    try:
        assert serving.stdout is not None
        place = re.findall(r"http://\S+/", serving.stdout.readline().decode())[0]
        with httpx2.Client(base_url=place, trust_env=False, timeout=60) as http:
            job_id = http.post("api/jobs", json={"question": "Why?"}).json()["job_id"]
            assert http.get(f"api/jobs/{job_id}").json()["status"] == "started"
            worker = account.start("worker")
            wait_until(lambda: http.get(f"api/jobs/{job_id}").json()["status"] == "completed", "the end of the job")
            assert "[emulator]" in http.get(f"api/jobs/{job_id}/result").json()["response"]
            assert job_id in account.says("list", "--json")[1]
    finally:
        for process in filter(None, (serving, worker)):
            process.send_signal(signal.SIGINT)
        said = [process.communicate(timeout=30)[1] for process in filter(None, (serving, worker))]
    assert (serving.returncode, said[0]) == (130, b"")


@pytest.mark.parametrize("url", ["mysql://me:hush@host/name", "postgresql://me:hush@127.0.0.1:1/name"])
def test_serve_without_a_database_says_so(account: Account, url: str) -> None:
    """A database that is none, or that cannot be reached, is a sentence without its password."""
    code, _, err = account.says("serve", "--port", "0", "--database", url)
    assert (code, "hush" in err, "Traceback" in err) == (6, False, False), err


def test_the_database_may_stand_in_the_environment(account: Account, tmp_path: Path) -> None:
    """O3PRO_BG_DATABASE names it, without telling who lists processes; --store passes it over."""
    database = {"O3PRO_BG_DATABASE": f"sqlite:///{tmp_path}/shared.db"}
    job_id = account.says("submit", "Why?", **database)[1].strip()
    assert job_id in account.says("list", "--json", **database)[1]
    assert account.says("list", "--json", "--store", str(tmp_path / "file.db"), **database)[1].strip() == "[]"
    assert account.says("rm", job_id, "--store", str(tmp_path / "file.db"), **database)[0] == Exit.NOT_FOUND
    code, _, err = account.says("rm", job_id, **database)
    assert (code, "not finished" in err) == (Exit.NOT_FINISHED, True), err


def test_whatever_changes_jobs_does_so_in_a_database(
    account: Account, o3pro_emulator: Emulator, tmp_path: Path
) -> None:
    """A batch is lived by workers, as is what is attached to; `rm` and `prune` forget, and `doctor` counts."""
    o3pro_emulator.set_knobs("seconds=0.2 queued=0")
    account.environment["O3PRO_BG_DATABASE"] = f"sqlite:///{tmp_path}/shared.db"
    (tmp_path / "questions.jsonl").write_text('"Why?"\n"What?"\n')
    batch = ("batch", str(tmp_path / "questions.jsonl"))
    code, _, err = account.says(*batch, "--concurrency", "2")
    assert (code, "o3pro-bg worker --concurrency" in err) == (Exit.USAGE, True), err
    worker = account.start("worker")
    try:
        code, out, err = account.says(*batch)
        results = [json.loads(line) for line in out.splitlines()]
        assert (code, sorted(result["line"] for result in results)) == (0, [1, 2]), err
        response = httpx2.post(
            f"{o3pro_emulator.endpoint}/openai/v1/responses",
            json={"model": "o3-pro", "input": "And?", "background": True},
            headers={"api-key": o3pro_emulator.api_key},
            trust_env=False,
        ).json()["id"]
        attached = account.says("attach", response)[1].strip()
        assert "[emulator]" in account.says("result", attached, "--wait")[1]
        assert account.says("rm", attached)[0] == 0
        assert "holds 2 jobs, 0 under way" in account.says("doctor")[1]
        assert account.says("prune", "--older-than", "0s")[0] == 0
        assert account.says("list", "--json", "--all")[1].strip() == "[]"
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=30)
    assert o3pro_emulator.counters()["accepted"] == 3


@pytest.mark.parametrize(
    ("url", "why"),
    [("mysql://me:hush@host/name", "sqlite:///path"), ("postgresql://me:hush@127.0.0.1:1/name", "cannot be reached")],
)
def test_the_doctor_looks_at_the_database(account: Account, url: str, why: str) -> None:
    """A database that cannot be used is one of the problems, without its password."""
    code, out, err = account.says("doctor", "--database", url)
    assert (code, why in out, "hush" in out + err) == (Exit.CONFIGURATION, True, False), out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "needs --database"),
        (("--database", "mysql://me:hush@host/name"), "postgresql://user:password@host/name"),
        (("--database", "postgresql://me:hush@127.0.0.1:1/name"), "cannot be reached"),
    ],
)
def test_a_worker_without_a_database_says_so(account: Account, arguments: tuple[str, ...], why: str) -> None:
    """What is no database, or cannot be reached, is a sentence without its password, and a code of its own."""
    code, _, err = account.says("worker", *arguments)
    assert (code, why in err, "hush" in err, "Traceback" in err) == (6, True, False, False), err


def test_without_the_extra(account: Account, tmp_path: Path) -> None:
    """Where DBOS is not installed, the command says what to install."""
    place = ("--database", f"sqlite:///{tmp_path}/shared.db")
    code, _, err = account.says("list", *place, without=("dbos",))
    assert (code, 'pip install "o3pro-bg[dbos]"' in err) == (6, True), err
