"""What would bite whoever uses DBOS as it comes: each fence has a test that fails without it."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from dbos import DBOSClient

from o3pro_bg import BackgroundHandler, ConfigError, DbosEngine, StoreError
from o3pro_bg._dbos import database, engine
from o3pro_bg._dbos.database import parsed
from o3pro_bg.testing import FakeClient, FakeRemote

from .faces import QUICK, Driver, fake
from .host import Host, hosts
from .peers import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from o3pro_bg.emulator import Emulator

    Open = Callable[..., Host]

SECRET = "what nobody else shall read"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the database is."""
    return tmp_path / "jobs.db"


@pytest.fixture
def host(o3pro_emulator: Emulator, path: Path) -> Iterator[Open]:
    """Start one more host, over the emulator and the database."""
    with hosts(o3pro_emulator, f"sqlite:///{path}") as start:
        yield start


def rows(path: Path, sql: str) -> list[tuple[str, ...]]:
    """Answer what the database holds."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_each_process_has_an_executor_of_its_own(o3pro_emulator: Emulator, host: Open, path: Path) -> None:
    """By default all executors are one to DBOS, which starts their jobs anew with each that comes; ours are not."""
    o3pro_emulator.set_knobs("seconds=30 queued=0")
    one = host()
    first = one.start()
    until(lambda: one.do("check_status", first)["status"] == "running")
    other = host().opened()
    one.kill()
    second = other.start()
    until(lambda: other.do("check_status", second)["status"] == "running")
    until(lambda: sorted(other.do("held")) == sorted([first, second]))
    told = rows(path, "SELECT workflow_uuid, executor_id FROM workflow_status")
    assert len({executor for _, executor in told}) == 2
    assert "local" not in {executor for _, executor in told}
    assert o3pro_emulator.counters()["duplicates"] == {}


def test_code_that_changes_strands_no_job(host: Open) -> None:
    """DBOS deals jobs to the newest version of an application's code alone; ours is that of the tables."""
    one = host().opened()
    host(code="from dbos import DBOS\n@DBOS.workflow()\ndef another() -> None: ...").opened().kill()
    assert one.do("wait", one.start(), 25)["success"]


def test_values_are_json_and_hold_no_question(host: Open, path: Path) -> None:
    """DBOS writes pickles by default, which whoever writes to the database makes run code; ours are JSON of ids."""
    one = host()
    job_id = one.start(SECRET)
    assert one.do("wait", job_id, 25)["success"]
    until(lambda: rows(path, "SELECT status FROM workflow_status") == [("SUCCESS",)])
    ((inputs, how),) = rows(path, "SELECT i.inputs, s.serialization FROM workflow_input i, workflow_status s")
    assert how == "portable_json"
    assert json.loads(inputs)["positionalArgs"][0] == job_id
    outputs = rows(path, "SELECT output, serialization FROM operation_outputs")
    assert len(outputs) == 2, "two steps: submit, and watch"
    assert {how for _, how in outputs} == {"portable_json"}
    assert SECRET not in str((inputs, outputs))


def test_what_is_removed_is_removed_from_dbos(host: Open, path: Path, o3pro_emulator: Emulator) -> None:
    """DBOS keeps all that it ever dealt out; what it knows of a job goes with the job, however often it was dealt."""
    tables = ("workflow_status", "workflow_input", "workflow_output", "operation_outputs")

    def left() -> int:
        return sum(len(rows(path, f"SELECT * FROM {table}")) for table in tables)  # noqa: S608

    def statuses() -> list[str]:
        return [status for (status,) in rows(path, "SELECT status FROM workflow_status")]

    o3pro_emulator.set_knobs("seconds=60 queued=0")
    reader = host(engine={"worker": False}).opened()
    with sqlite3.connect(path) as connection:  # as after a year
        connection.execute("UPDATE o3pro_meta SET seq = 10000000")
    one = host()
    job_id = reader.start()
    until(lambda: reader.do("check_status", job_id)["status"] == "running")
    host()
    one.kill()
    until(lambda: statuses() == ["CANCELLED", "PENDING"])
    assert reader.do("cancel_job", job_id)["success"]
    until(lambda: statuses() == ["CANCELLED", "SUCCESS"])
    assert left() > 4
    assert reader.do("remove_job", job_id)["success"]
    until(lambda: left() == 0)


def test_what_is_removed_while_it_is_under_way_is_called_off(host: Open, path: Path, o3pro_emulator: Emulator) -> None:
    """A workflow that is under way, of a job that is gone, is called off, and then removed, while jobs are lived."""
    one = host()
    job_id = one.start()
    assert one.do("wait", job_id, 25)["success"]
    until(lambda: rows(path, "SELECT status FROM workflow_status") == [("SUCCESS",)])
    with sqlite3.connect(path) as connection:  # as if its process had died before it could tell
        connection.execute("UPDATE workflow_status SET status = 'PENDING'")
    assert one.do("remove_job", job_id)["success"]
    o3pro_emulator.set_knobs("seconds=60")
    one.start()
    until(lambda: job_id not in str(rows(path, "SELECT workflow_uuid FROM workflow_status")))
    assert job_id not in str(rows(path, "SELECT workflow_uuid FROM workflow_input"))


def test_what_was_dealt_as_its_worker_closed_is_dealt_again(tmp_path: Path) -> None:
    """A worker may close in any moment of being dealt jobs: those that it did not take up are dealt again."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    client = FakeClient(FakeRemote(seconds=0.05, queued=0))
    with BackgroundHandler(client, engine=DbosEngine(url, worker=False)) as reader:
        jobs = []
        for _ in range(5):
            with BackgroundHandler(client, engine=DbosEngine(url, poll=0.02), pace=QUICK):
                jobs += [reader.submit("q") for _ in range(20)]
        with BackgroundHandler(client, engine=DbosEngine(url, poll=0.02, lease=1), pace=QUICK):
            assert all(job.result(25) for job in jobs)


def test_who_closes_cancels_what_it_lives_alone(tmp_path: Path) -> None:
    """`on_close="cancel"` is no matter of jobs that wait for a worker, however soon after their start it comes."""
    others = DbosEngine(f"sqlite:///{tmp_path}/jobs.db", worker=False)
    for _ in range(5):
        with BackgroundHandler(fake(), engine=others, on_close="cancel") as submitter:
            submitter.submit("q")
    with BackgroundHandler(fake(), engine=others) as reader:
        assert [job["status"] for job in reader.list_active_jobs()] == ["started"] * 5
    worker = DbosEngine(f"sqlite:///{tmp_path}/jobs.db", poll=0.02)
    remote = FakeRemote(seconds=100, queued=0)
    with BackgroundHandler(FakeClient(remote), engine=worker, on_close="cancel", pace=QUICK) as handler:
        until(lambda: {job["status"] for job in handler.list_active_jobs()} == {"running"})
    assert {job["status"] for job in handler.list_active_jobs()} == {"cancelled"}


OWN = """
from dbos import DBOS
DBOS(config={{"name": "theirs", "system_database_url": "{url}", "log_level": "CRITICAL"}})
"""


def test_an_application_that_runs_dbos_is_joined(host: Open, path: Path) -> None:
    """A process has one DBOS: that of the application lives our jobs, too, and is left running."""
    one = host(code=OWN.format(url=f"sqlite:///{path}") + "DBOS.launch()")
    assert one.do("wait", one.start(), 25)["success"]
    one.do("close")
    until(lambda: one.do("run", "answer = DBOS.list_workflows()[0].status") == "SUCCESS")


@pytest.mark.parametrize(
    ("suffix", "launch", "why"), [(".other", "DBOS.launch()", "on another database"), ("", "", "has not launched")]
)
def test_dbos_that_cannot_deal_our_jobs_is_told(host: Open, path: Path, suffix: str, launch: str, why: str) -> None:
    """Where the application's DBOS is of no use to us, a sentence says so, and what to do."""
    url = f"sqlite:///{path}{suffix}"
    one = host(code=OWN.format(url=url) + launch)
    with pytest.raises(AssertionError, match=why):
        one.opened()


def test_an_application_that_runs_dbos_takes_no_job_of_ours(o3pro_emulator: Emulator, host: Open, path: Path) -> None:
    """DBOS polls all queues that are nobody's; ours are somebody's, so nobody takes what he cannot live."""
    o3pro_emulator.set_knobs("seconds=0.1 queued=0")
    own = OWN.format(url=f"sqlite:///{path}") + "DBOS.launch()"
    reader = host(engine={"worker": False}).opened()
    stranger = Host(o3pro_emulator, f"sqlite:///{path}", code=own, engine={"worker": False})
    with stranger, host():
        stranger.opened()
        for number in range(5):  # which takes longer than DBOS does to find a queue
            ids = [reader.start(f"q {number}") for _ in range(2)]
            assert all(reply["success"] for reply in reader.do("wait_all", ids, 25).values())
        statuses = [status for (status,) in rows(path, "SELECT status FROM workflow_status")]
        assert len(statuses) == 10, "each was dealt once"


def test_two_databases_in_one_process(tmp_path: Path) -> None:
    """A process lives the jobs of one database; of another one it may be no worker, and one after the other is fine."""
    one = BackgroundHandler(fake(), engine=DbosEngine(f"sqlite:///{tmp_path}/1.db", poll=0.02), pace=QUICK)
    with pytest.raises(StoreError, match="worker=False"):
        BackgroundHandler(fake(), engine=DbosEngine(f"sqlite:///{tmp_path}/2.db"))
    other = DbosEngine(f"sqlite:///{tmp_path}/2.db", worker=False)
    with BackgroundHandler(fake(), engine=other) as reader:
        assert reader.list_active_jobs() == []
    one.close()
    with BackgroundHandler(fake(), engine=DbosEngine(f"sqlite:///{tmp_path}/2.db", poll=0.02), pace=QUICK) as two:
        assert two.submit("q").result(20)


def test_a_workflow_that_is_cancelled_cancels_its_job(o3pro_emulator: Emulator, host: Open, path: Path) -> None:
    """Who cancels with the tools of DBOS gets what he wants: the job is cancelled at the service."""
    o3pro_emulator.set_knobs("seconds=60 queued=0")
    one = host()
    job_id = one.start()
    until(lambda: one.do("check_status", job_id)["status"] == "running")
    client = DBOSClient(system_database_url=f"sqlite:///{path}")
    client.cancel_workflow(client.list_workflows()[0].workflow_id)
    client.destroy()
    assert one.do("wait", job_id, 25)["status"] == "cancelled"
    assert o3pro_emulator.counters()["cancels"] == 1


@pytest.mark.parametrize("url", ["postgresql://me:hush-hush@127.0.0.1:1/jobs", "sqlite:////proc/no/jobs.db"])
def test_a_database_that_cannot_be_had_is_told(caplog: pytest.LogCaptureFixture, url: str) -> None:
    """The error names the database and what to do, and no password; nor does the engine, or the log."""
    caplog.set_level(logging.DEBUG)
    engine = DbosEngine(url)
    assert "hush" not in repr(engine)
    with pytest.raises(StoreError) as told:
        BackgroundHandler(fake(), engine=engine)
    where, what = ("127.0.0.1:1/jobs", "check that it runs") if "@" in url else ("/proc/no/jobs.db", "check the disk")
    assert where in str(told.value)
    assert what in str(told.value)
    assert "hush" not in repr(engine.store(max_concurrency=None)._terms)
    with Driver("async", fake(), {"engine": engine}) as driver:
        reply = driver.do("start_background_task", "q")
        assert not reply["success"]
    said = f"{told.value} {reply} {caplog.text} {told.value.__cause__} {told.value.__context__}"
    assert "hush" not in said


@pytest.mark.parametrize("url", ["", "jobs.db", "mysql://me:hush@host/jobs", "postgresql://me:hush@host", "sqlite://"])
def test_what_is_no_database_is_refused(url: str) -> None:
    """A URL of something else is a ValueError that says what one looks like, and does not repeat it."""
    with pytest.raises(ValueError, match="postgresql://user:password@host/name") as told:
        parsed(url)
    assert "hush" not in str(told.value)


def test_settings_that_are_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine is a DbosEngine with figures that make sense, and needs no store beside it, but DBOS."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    for wrong in ({"lease": 0.5}, {"lease": 60}, {"poll": 0}, {"most_at_hand": 0}, {"requests_per_minute": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DbosEngine(url, **wrong)
    with pytest.raises(TypeError, match="DbosEngine"):
        BackgroundHandler(fake(), engine=DbosEngine)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leave store= out"):
        BackgroundHandler(fake(), engine=DbosEngine(url), store=tmp_path / "store.db")
    monkeypatch.setitem(sys.modules, "o3pro_bg._dbos.database", None)
    with pytest.raises(ConfigError, match=r"pip install \"o3pro-bg\[dbos\]\""):
        DbosEngine(url)


@pytest.mark.parametrize("installed", ["3.3.9", "3.40.0", "3.5.0", "4.0"])
def test_another_version_of_dbos_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str) -> None:
    """A version of DBOS that was not tested is refused, before it is imported, with what to install."""
    monkeypatch.setattr(engine, "version", lambda name: installed)
    monkeypatch.setitem(sys.modules, "o3pro_bg._dbos.database", None)
    with pytest.raises(ConfigError, match=rf"DBOS 3\.4, and {installed} is installed: pip install"):
        DbosEngine(f"sqlite:///{tmp_path}/jobs.db")


def test_the_version_of_dbos_is_pinned() -> None:
    """What the extra installs is what the engine takes."""
    extras = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    (pin,) = (each for each in extras["optional-dependencies"]["dbos"] if each.startswith("dbos"))
    major, minor = engine.TESTED.split(".")
    assert pin == f"dbos>={engine.TESTED},<{major}.{int(minor) + 1}"


FORKED = """
import os, sys, warnings
from o3pro_bg import BackgroundHandler, DbosEngine, StoreError
from o3pro_bg.testing import FakeClient, FakeRemote

engine = DbosEngine(sys.argv[1], poll=0.1, worker=sys.argv[2] == "worker")
handler = BackgroundHandler(FakeClient(FakeRemote(seconds=0.0, queued=0.0)), engine=engine)
handler.start_background_task("q")
if os.fork() == 0:
    try:
        print(handler.start_background_task("q")["success"], len(handler.list_active_jobs()), flush=True)
    except StoreError as told:
        print("fork before that" in str(told), flush=True)
    os._exit(0)
os.wait()
print(handler.start_background_task("q")["success"])
handler.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize(("part", "says"), [("worker", "True True"), ("submitter", "True 2 True")])
def test_a_forked_process(database: str, part: str, says: str) -> None:
    """A child of one that lives no jobs begins anew; that of a worker is told why it cannot; the parent goes on."""
    command = [sys.executable, "-c", FORKED, database, part]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    assert done.stdout.split() == says.split()


@pytest.mark.parametrize(
    ("python", "sqlite", "is_fit"), [((3, 11), 40, True), ((3, 12), 42, True), ((3, 12), 40, False)]
)
def test_an_sqlite_that_dbos_cannot_use_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, python: tuple[int, int], sqlite: int, is_fit: bool
) -> None:
    """Where DBOS would ask SQLite for what it cannot tell yet, it is said which one is needed, and nothing is made."""
    monkeypatch.setattr(database, "sys", SimpleNamespace(version_info=python))
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, sqlite, 1))
    there = database.Database(f"sqlite:///{path}", "dbos")
    if is_fit:
        there._check_sqlite()
        return
    with pytest.raises(StoreError, match=r"SQLite 3\.42 or newer"):
        there.prepare(sa.MetaData(), lambda _: None)
    assert not path.exists()
