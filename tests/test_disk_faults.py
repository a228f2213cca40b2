"""What disks, and people with a shell, do to a file: a clear StoreError, the jobs live on, and no answer is false."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import BackgroundHandler
from o3pro_bg._records import Failure
from o3pro_bg._sqlite.store import SqliteStore
from o3pro_bg.errors import StoreError
from o3pro_bg.testing import Event, FakeClient, FakeRemote, News

from .child import SOON
from .faces import FOREVER, QUICK
from .peers import ENDPOINT, Peer, ended, get, of, record, sentence, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path


BIG = 100_000
ANSWERS = {f"job-{number:02}": f"the answer of {number}: " + f"{number * 7919:x}" * 40 for number in range(12)}
on_posix = pytest.mark.skipif(os.name != "posix", reason="only POSIX lets a file go that is in use")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the file is."""
    return tmp_path / "jobs.db"


@pytest.fixture
def make() -> Iterator[Callable[..., SqliteStore]]:
    """Make stores, and close them in the end."""
    stores: list[SqliteStore] = []

    def make(path: Path, busy: float = 5.0) -> SqliteStore:
        store = SqliteStore(path)
        store._busy = busy
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close().exception(SOON)


@pytest.fixture
def enter(make: Callable[..., SqliteStore]) -> Callable[..., SqliteStore]:
    """Open stores that can be opened."""

    def enter(path: Path, **settings: float) -> SqliteStore:
        store = make(path, **settings)
        store.open(ENDPOINT, len).result(SOON)
        return store

    return enter


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk))
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)  # noqa: S603, S607 - the path is ours


def mount(*arguments: str) -> None:
    """Mount something, or skip the test where this user may not."""
    command = shutil.which("mount")
    if command is None or subprocess.run([command, *arguments], capture_output=True, check=False).returncode:  # noqa: S603
        pytest.skip("this user may not mount a file system of its own here")


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Have the disk full for a while."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield
    filler.unlink()


def sql(path: Path, statement: str) -> list[Any]:
    """Ask the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


# --- full, read-only, locked ------------------------------------------------------------------------------------


def test_full_disk(small_disk: Path, enter: Callable[..., SqliteStore]) -> None:
    """On a full disk new jobs are refused, answers stay in memory, and are written when there is room again."""
    path = small_disk / "jobs.db"
    store = enter(path)
    for job_id in "abc":
        of(store.insert(record(job_id)))
    with filled(small_disk):
        refused = store.insert(record("d", waiting="x" * BIG))
        change = store.replace(ended(get(store), answer="y" * BIG))
        assert "the disk is full: make room there" in sentence(refused)
        assert str(path) in sentence(refused)
        assert "the disk is full" in sentence(change)
        assert [found.job_id for found in store.snapshot()] == ["a", "b", "c"]
        assert get(store).answer == "y" * BIG
        assert store.holds("b")
    until(lambda: sql(path, "SELECT ended FROM jobs") == [(1,), (0,), (0,)])
    assert of(store.insert(record("d"))).job_id == "d"
    of(store.close())
    assert get(enter(path)).answer == "y" * BIG


def test_full_disk_has_no_room_for_a_store(small_disk: Path, make: Callable[..., SqliteStore]) -> None:
    """A store that would have to be made on a full disk is refused as that, and can be made when there is room."""
    with filled(small_disk):
        assert "the disk is full: make room there" in sentence(make(small_disk / "jobs.db").open(ENDPOINT, len))
    of(make(small_disk / "jobs.db").open(ENDPOINT, len))


def test_close_on_a_full_disk(small_disk: Path, enter: Callable[..., SqliteStore]) -> None:
    """A close on a full disk ends, and says what could not be written; what was written before is there."""
    store = enter(small_disk / "jobs.db")
    of(store.insert(record("a")))
    with filled(small_disk):
        sentence(store.replace(ended(get(store), answer="y" * BIG)))
        assert "the last news of these jobs could not be written: a" in sentence(store.close())
    assert get(enter(small_disk / "jobs.db")).answer is None


def test_read_only_disk(small_disk: Path, make: Callable[..., SqliteStore], enter: Callable[..., SqliteStore]) -> None:
    """A store on a disk that cannot be written is refused as that, whether it is there or would have to be made."""
    store = enter(small_disk / "jobs.db")
    of(store.insert(record("a")))
    of(store.close())
    mount("-o", "remount,ro", str(small_disk))
    for name in ("jobs.db", "new.db", "new/jobs.db"):
        why = sentence(make(small_disk / name).open(ENDPOINT, len))
        assert "it, or where it lies, cannot be written: check permissions, owner and mount" in why


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="no mode keeps root from writing")
@pytest.mark.parametrize(("what", "mode"), [("jobs.db", 0o400), ("jobs.db", 0o000), (".", 0o500)])
def test_missing_permission(
    path: Path, make: Callable[..., SqliteStore], enter: Callable[..., SqliteStore], what: str, mode: int
) -> None:
    """A file that this user may not write, or may not write beside, is refused as that."""
    of(enter(path).close())
    target = path.parent / what
    target.chmod(mode)
    try:
        assert "cannot be written: check permissions" in sentence(make(path).open(ENDPOINT, len))
    finally:
        target.chmod(0o700)


LOCKING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Have another process lock the file for a while."""
    command = [sys.executable, "-c", LOCKING, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603 - ours
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"locked"
        yield
        process.kill()


def test_lock_of_another_process(path: Path, enter: Callable[..., SqliteStore]) -> None:
    """While another process locks the file, reads go on and changes are refused; it may be killed without harm."""
    store = enter(path, busy=0.1)
    of(store.insert(record("a")))
    with locked(path):
        assert "another process has locked it for too long" in sentence(store.insert(record("b")))
        assert "another process has locked it for too long" in sentence(store.replace(ended(get(store))))
        assert get(store).answer == "text"
    until(lambda: sql(path, "SELECT ended FROM jobs") == [(1,)])


def test_lock_of_another_process_while_it_is_opened(path: Path, make: Callable[..., SqliteStore]) -> None:
    """A file that another process locks, made or not yet made, is refused as that."""
    for _ in range(2):
        with locked(path):
            why = sentence(make(path, busy=0.1).open(ENDPOINT, len))
            assert "another process has locked it for too long: end that process, or let it finish" in why
        of((store := make(path)).open(ENDPOINT, len))
        of(store.close())


# --- deleted, replaced ------------------------------------------------------------------------------------------


@on_posix
@pytest.mark.parametrize("how", ["deleted", "replaced", "journal deleted", "locks deleted", "directory deleted"])
def test_file_that_goes_away(path: Path, enter: Callable[..., SqliteStore], how: str) -> None:
    """A file that is deleted or replaced under us takes nothing more, silently or not; what was read is still read."""
    path = path.parent / "there" / "jobs.db"
    store = enter(path)
    of(store.insert(record("a")))
    match how:
        case "deleted":
            path.unlink()
        case "replaced":
            other = path.with_name("other.db")
            of(enter(other).insert(record("z")))
            other.replace(path)
        case "journal deleted":
            path.with_name("jobs.db-wal").unlink()
        case "locks deleted":
            path.with_name("jobs.db-shm").unlink()
        case _:
            shutil.rmtree(path.parent)
    assert "it was deleted or replaced while in use: put it back, or open a new store" in sentence(
        store.insert(record("b"))
    )
    assert "deleted or replaced" in sentence(store.replace(ended(get(store))))
    assert [found.answer for found in store.snapshot()] == ["text"]
    assert "the last news of these jobs could not be written: a" in sentence(store.close())


@on_posix
@pytest.mark.parametrize("how", ["linked", "mounted"])
def test_file_apart_from_its_folder(
    path: Path, make: Callable[..., SqliteStore], enter: Callable[..., SqliteStore], how: str
) -> None:
    """A file that has another name, or is mounted by itself, is refused: others would not find its journal."""
    of(enter(path).insert(record("a")))
    other = path.parent / "other" / "jobs.db"
    other.parent.mkdir()
    if how == "linked":
        other.hardlink_to(path)
    else:
        mount("-t", "tmpfs", "tmpfs", str(other.parent))
        other.touch()
        mount("--bind", str(path), str(other))
    try:
        assert "mount the directory it lies in" in sentence(make(other).open(ENDPOINT, len))
    finally:
        if how == "mounted":
            subprocess.run(["umount", "--lazy", str(other)], check=True)  # noqa: S603, S607 - the paths are ours
            subprocess.run(["umount", "--lazy", str(other.parent)], check=True)  # noqa: S603, S607


@on_posix
def test_file_that_comes_back(path: Path, enter: Callable[..., SqliteStore]) -> None:
    """A file that was moved away and put back takes up what could not be written meanwhile."""
    store = enter(path)
    of(store.insert(record("a")))
    path.rename(path.with_name("away.db"))
    assert "deleted or replaced" in sentence(store.replace(ended(get(store))))
    path.with_name("away.db").rename(path)
    until(lambda: sql(path, "SELECT ended FROM jobs") == [(1,)])
    of(store.close())


# --- damage -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file with some jobs that have ended and some that have not."""
    path = tmp_path_factory.mktemp("sound") / "jobs.db"
    store = SqliteStore(path)
    store.open(ENDPOINT, len).result(SOON)
    for number, (job_id, answer) in enumerate(ANSWERS.items()):
        first = store.insert(record(job_id, key=f"key-{number}", response_id=f"resp_{number}")).result(SOON)
        if number % 3:
            store.replace(ended(first, answer)).result(SOON)
    store.close().result(SOON)
    return path


def examine(store: SqliteStore) -> str:
    """Check that a file that may be damaged gives no false answer, and answer in a word what was found."""
    opened = store.open(ENDPOINT, len)
    if opened.exception(SOON) is not None:
        assert store._path in sentence(opened)
        return "refused"
    damaged = 0
    records = {found.job_id: found for found in store.snapshot()}
    for found in records.values():
        if found.failure == Failure("store_damaged"):
            damaged += 1
            assert found.answer is None
        elif not found.request.is_whole:
            damaged += 1
        else:
            assert found.request.question == f"Why {found.job_id}?"
        if found.failure is None:
            number = [*ANSWERS].index(found.job_id)
            assert found.answer == (ANSWERS[found.job_id] if number % 3 else None)
            assert found.response_id == f"resp_{number}"
    assert len(records) == len(ANSWERS)
    changes: list[Future[Any]] = [store.insert(record("new")), store.remove("job-01"), store.refresh()]
    changes += [store.replace(ended(found, "late")) for found in records.values() if store.holds(found.job_id)]
    changes.append(store.close())
    for change in changes:
        assert isinstance(change.exception(SOON), StoreError | None)
    return "damaged" if damaged else "sound"


def test_flipped_bytes(sound: Path, path: Path, make: Callable[..., SqliteStore]) -> None:
    """A file with flipped bytes is refused, or its damaged rows are told from the sound ones: no answer is false."""
    whole = sound.read_bytes()
    luck = random.Random(20261124)
    verdicts = set()
    for _ in range(250):
        data = bytearray(whole)
        for _ in range(luck.choice((1, 1, 1, 2, 8, 64))):
            data[luck.randrange(len(data))] ^= luck.randrange(1, 256)
        path.write_bytes(data)
        verdicts.add(examine(make(path)))
        clear(path)
    assert verdicts == {"refused", "damaged", "sound"}


def test_overwritten_and_cut_files(sound: Path, path: Path, make: Callable[..., SqliteStore]) -> None:
    """A file that was cut short, or in which a block is blank or foreign, is refused, or its rows are told apart."""
    whole = sound.read_bytes()
    luck = random.Random(20261125)
    verdicts = set()
    for _ in range(80):
        at, size = luck.randrange(len(whole)), luck.choice((16, 512, 4096))
        block = luck.choice((bytes(size), luck.randbytes(size)))
        data = whole[:at] + luck.choice((b"", block + whole[at + size :]))
        path.write_bytes(data)
        if data:
            verdicts.add(examine(make(path)))
        clear(path)
    assert {"refused", "damaged"} <= verdicts


def clear(path: Path) -> None:
    """Remove a file, and what lies beside it."""
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def test_cut_journals(path: Path, make: Callable[..., SqliteStore]) -> None:
    """After a crash, a journal that is cut short or damaged gives an earlier state of the file, which is sound."""
    with Peer(path, lease=600.0) as peer:
        peer.do("insert", "a")
        peer.do("change", "a", {"status": "running", "response_id": "resp_1"})
        peer.do("end", "a", "the answer", {})
        peer.kill()
    database, journal = path.read_bytes(), path.with_name("jobs.db-wal").read_bytes()
    luck = random.Random(20261126)
    seen: set[tuple[Any, ...]] = set()
    for _ in range(60):
        clear(path)
        data = bytearray(journal[: luck.choice((len(journal), luck.randrange(len(journal))))])
        if data and luck.random() < 0.5:
            data[luck.randrange(len(data))] ^= luck.randrange(1, 256)
        path.write_bytes(database)
        path.with_name("jobs.db-wal").write_bytes(data)
        path.with_name("jobs.db-shm").write_bytes(luck.randbytes(32768))
        store = make(path)
        of(store.open(ENDPOINT, len))
        records = store.snapshot()
        seen.add(tuple(str(found.status) for found in records))
        for found in records:
            assert (found.status == "completed") == (found.answer == "the answer")
            assert found.failure is None
        of(store.insert(record(f"new-{time.time()}")))
        of(store.close())
        assert sql(path, "PRAGMA integrity_check") == [("ok",)]
    assert {("started",), ("running",), ("completed",)} <= seen


# --- what a user sees of it -------------------------------------------------------------------------------------


def test_handler_on_a_full_disk(small_disk: Path) -> None:
    """A start is refused with a sentence, results are told from memory, and are in the file when there is room."""
    client = FakeClient(FakeRemote(seconds=FOREVER, queued=0.0))
    path = small_disk / "jobs.db"
    with BackgroundHandler(client, store=path, pace=QUICK, language="en") as handler:
        job_id = handler.start_background_task("q")["job_id"]
        until(lambda: handler.check_status(job_id)["status"] == "running")
        with filled(small_disk):
            reply = handler.start_background_task("x" * BIG)
            assert not reply["success"]
            assert "the disk is full: make room there" in reply["error"]
            client.remote.script["look"] = [News(Event.ANSWERED, answer="y" * BIG)]
            assert handler.wait(job_id, timeout=SOON)["response"] == "y" * BIG
            assert handler.check_status(job_id)["status"] == "completed"
            assert sql(path, "SELECT ended FROM jobs") == [(0,)]
        until(lambda: sql(path, "SELECT ended FROM jobs") == [(1,)])
        assert handler.start_background_task("x" * BIG)["success"]
        until(lambda: client.remote.counts["create"] == 2)


@on_posix
def test_handler_whose_file_goes_away(path: Path) -> None:
    """A start is refused, what was answered stays readable, and when the file is back all is as it was."""
    client = FakeClient(FakeRemote(seconds=0.0))
    with BackgroundHandler(client, store=path, pace=QUICK, language="en") as handler:
        job_id = handler.start_background_task("q")["job_id"]
        answer = handler.wait(job_id, timeout=SOON)
        path.rename(path.with_suffix(".away"))
        reply = handler.start_background_task("q")
        assert "it was deleted or replaced while in use: put it back" in reply["error"]
        assert handler.get_result(job_id) == answer
        path.with_suffix(".away").rename(path)
        assert handler.start_background_task("q")["success"]
