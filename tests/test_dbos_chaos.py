"""Hosts on one PostgreSQL, while everything around them fails: every job ends, and none was created twice."""

from __future__ import annotations

import math
import os
import random
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, LiteralString, Self
from urllib.parse import urlsplit

import psycopg
import pytest

from .host import Host
from .peers import until
from .postgres import ABSENT, Postgres, programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from o3pro_bg.emulator import Emulator

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="processes are stopped by POSIX's signals"),
    pytest.mark.skipif(programs() is None, reason=ABSENT),
]

JOBS: Final = 300
A_MINUTE: Final = 900
_OURS: Final = os.getpid() % 256  # of the addresses that are set aside for trying out networks


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """Start a PostgreSQL, which this test may stop."""
    with Postgres() as server:
        yield server


class Wire:
    """A way to the database that can be cut, so that nothing comes through and nobody is told, and healed."""

    def __init__(self, to: tuple[str, int], at: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self._to = to
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(at)
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing through from now on."""
        self._open.clear()

    def heal(self) -> None:
        """Let through what waits, and all that comes."""
        self._open.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self._open.wait()
        try:
            far = socket.create_connection(self._to)
        except OSError:  # a cable is pulled out
            near.close()
            return
        self._sockets.append(far)
        threading.Thread(target=self._carry, args=(near, far), daemon=True).start()
        self._carry(far, near)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.heal()
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class Network:
    """A network namespace, which is to its processes a machine of its own, on a cable to this one."""

    def __init__(self, number: int) -> None:
        here, there = (f"198.18.{_OURS}.{4 * number + end}" for end in (1, 2))
        self._name, self._cable = f"o3pro{os.getpid()}n{number}", f"o3p{os.getpid() % 10**6}n{number}"
        _ip("netns", "add", self._name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._name)
        _ip("addr", "add", f"{here}/30", "dev", self._cable)
        _ip("-n", self._name, "addr", "add", f"{there}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", self._name, "link", "set", device, "up")
        self.heal()
        _ip("-n", self._name, "route", "add", "default", "via", here)
        self.within = ("ip", "netns", "exec", self._name)

    def cut(self) -> None:
        """Pull out the cable."""
        _ip("link", "set", self._cable, "down")

    def heal(self) -> None:
        """Put it in again."""
        _ip("link", "set", self._cable, "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "del", self._name)  # and with it its end of the cable


@contextmanager
def in_the_middle() -> Iterator[str]:
    """Have an address here that is the same from all machines, at the other end of their cables, and answer it."""
    address = f"198.19.{_OURS}.1"
    _ip("addr", "add", f"{address}/32", "dev", "lo")
    try:
        yield address
    finally:
        _ip("addr", "del", f"{address}/32", "dev", "lo")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)  # noqa: S603, S607 - of the machine


def has_networks() -> bool:
    """Tell whether networks can be made here."""
    try:
        with Network(9):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


class Submitter(threading.Thread):
    """Submits jobs from a host that lives none, each until it is kept: a key makes that one job."""

    def __init__(self, host: Host, name: str, jobs: int) -> None:
        super().__init__(daemon=True)
        host.opened()
        self.host = host
        self.ids: list[str] = []
        self._keys = [f"{name} {number}" for number in range(jobs)]
        self.faults: list[BaseException] = []
        self.start()

    def run(self) -> None:
        """Submit them all."""
        pause = threading.Event()
        try:
            for key in self._keys:
                while not (reply := self.host.do("start_background_task", key, dedupe_key=key))["success"]:
                    pause.wait(0.2)  # the database is away
                self.ids.append(reply["job_id"])
        except BaseException as exc:
            self.faults.append(exc)


class Witness:
    """
    Knows of which jobs nobody can know whether the service has them: their create has left, their id is not written.

    Such a job may end as `SubmissionUncertain` (see test_dbos). What is done to a worker is done in a moment in which
    none of its jobs is one. Then those alone are left whose create was on its way to the database just then: the
    database itself notes what comes from a worker, and when.
    """

    _NOTES = """
        CREATE TABLE notes (number serial, job_id text, owner text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO public.notes (job_id, owner) VALUES (NEW.job_id, NEW.owner);
            RETURN NULL;
        END $$;
        CREATE TRIGGER note AFTER UPDATE ON dbos.o3pro_jobs FOR EACH ROW WHEN (
            NEW.state::json->>'sent_at' IS NOT NULL AND NEW.state::json->>'response_id' IS NULL
        ) EXECUTE FUNCTION note();
    """
    _LEAVING = """
        SELECT job_id FROM dbos.o3pro_jobs WHERE ended = 0 AND owner LIKE %s
        AND state::json->>'sent_at' IS NOT NULL AND state::json->>'response_id' IS NULL
    """

    def __init__(self, database: str) -> None:
        self._database = database
        self._known: dict[str, set[tuple[int, str]]] = {}  # by worker, what had come from it
        self._last = math.inf
        self._ask(self._NOTES)

    def at_rest(self, worker: Host, act: Callable[[], object]) -> None:
        """Do something to a worker in a moment in which no create of its own is under way."""
        pause, owner = threading.Event(), f"% {worker.process.pid} %"
        while True:
            worker.stop()
            pause.wait(0.1)
            known = self._noted(owner)
            if not self._ask(self._LEAVING, owner):
                break
            worker.go_on()
            pause.wait(0.05)
        self._known[owner] = known
        act()

    def works_on(self) -> None:
        """Take note that what comes from now on is of creates that leave after it."""
        ((self._last,),) = self._ask("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM notes_number_seq")

    def uncertain(self) -> set[str]:
        """Answer of which jobs the creates were on their way to the database in such a moment."""
        came = [note for owner, known in self._known.items() for note in self._noted(owner) - known]
        return {job_id for number, job_id in came if number <= self._last}

    def _noted(self, owner: str) -> set[tuple[int, str]]:
        return {*self._ask("SELECT number, job_id FROM notes WHERE owner LIKE %s", owner)}

    def _ask(self, query: LiteralString, *values: str) -> list[Any]:
        with psycopg.connect(self._database, autocommit=True) as connection:
            found = connection.execute(query, values or None)
            return found.fetchall() if found.description else []


def outcomes(host: Host, ids: list[str], seconds: float) -> list[dict[str, Any]]:
    """Answer what came of these jobs, all of which end within so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        facts = host.do("facts")
        if all(facts.get(job_id, {}).get("ended_at") for job_id in ids):
            return [facts[job_id] for job_id in ids]
        assert time.monotonic() < deadline, [fact for fact in facts.values() if not fact["ended_at"]][:5]
        threading.Event().wait(0.5)


def all_end_well(submitters: list[Submitter], emulator: Emulator, witness: Witness) -> None:
    """See all jobs completed but those of which nobody can know, each created once, and no create refused."""
    for submitter in submitters:
        submitter.join(120)
        assert not submitter.is_alive()
        assert not submitter.faults, submitter.faults
    ids = [job_id for submitter in submitters for job_id in submitter.ids]
    assert len({*ids}) == JOBS
    ends = outcomes(submitters[0].host, ids, 240)
    failed = {job_id: end for job_id, end in zip(ids, ends, strict=True) if end["status"] != "completed"}
    assert failed.keys() <= witness.uncertain(), failed
    counters = emulator.counters()
    assert JOBS - len(failed) <= counters["accepted"] <= JOBS, "creates equal jobs"
    assert counters["duplicates"] == {}
    assert counters["refused"] == 0, "the quota was never exceeded"


def test_everything_fails_at_once(o3pro_emulator: Emulator, postgres: Postgres) -> None:
    """Workers are killed and replaced, the database stops and crashes: 300 jobs end, within the service's quota."""
    o3pro_emulator.set_knobs(f"seconds=1 queued=0 rpm={A_MINUTE}")
    database, luck, pause = postgres.database(), random.Random(11), threading.Event()
    terms: dict[str, Any] = {"lost_after": 2.0, "engine": {"most_at_hand": 40, "requests_per_minute": A_MINUTE}}
    with ExitStack() as stack:

        def host(**settings: Any) -> Host:
            return stack.enter_context(Host(o3pro_emulator, database, **settings))

        workers = [host(**terms) for _ in range(3)]
        submitters = [Submitter(host(engine={"worker": False}), name, JOBS // 2) for name in ("a", "b")]
        for worker in workers:
            worker.opened()
        witness = Witness(database)
        for happens in ("kill", "stop", "kill", "immediate", "kill"):
            pause.wait(luck.uniform(3, 5))
            if happens == "kill":
                victim = workers.pop(luck.randrange(3)).opened()
                witness.at_rest(victim, victim.kill)
                workers.append(host(**terms))
            else:
                for worker in workers:
                    worker.opened()  # one that begins while there is no database says so, and ends
                postgres.stop("fast" if happens == "stop" else happens)
                pause.wait(luck.uniform(0.5, 1.5))
                postgres.start()
        all_end_well(submitters, o3pro_emulator, witness)


class Machines:
    """
    Machines that reach the database and the service over their cables alone.

    Attributes:
        database: The database, as it is seen from here.
    """

    def __init__(self, emulator: Emulator, postgres: Postgres, stack: ExitStack) -> None:
        self._emulator, self._stack = emulator, stack
        self._networks: dict[int, Network] = {}
        port = int(urlsplit(emulator.endpoint).port or 0)
        middle = stack.enter_context(in_the_middle())
        tables = stack.enter_context(Wire(("127.0.0.1", postgres.port), (middle, 0)))
        models = stack.enter_context(Wire(("127.0.0.1", port), (middle, 0)))
        self.database = postgres.database()
        self._seen_from_there = self.database.replace(f"127.0.0.1:{postgres.port}", f"{middle}:{tables.port}")
        # The service is on each machine's own loopback, where plain HTTP is let go, and from there in the middle.
        self._service = (
            f"from tests.test_dbos_chaos import Wire\nWire(('{middle}', {models.port}), ('127.0.0.1', {port}))"
        )

    def start(self, number: int, **settings: Any) -> tuple[Network, Host]:
        """Start a host on the machine of this number, which is made with its first."""
        code = "" if number in self._networks else self._service
        if number not in self._networks:
            self._networks[number] = self._stack.enter_context(Network(number))
        network = self._networks[number]
        host = Host(self._emulator, self._seen_from_there, within=network.within, code=code, **settings)
        return network, self._stack.enter_context(host).opened()


@pytest.fixture
def machines(o3pro_emulator: Emulator, postgres: Postgres) -> Iterator[Machines]:
    """Give machines, of which there is none yet."""
    if not has_networks():
        pytest.skip("network namespaces cannot be made here: that takes root, and iproute2")
    with ExitStack() as stack:
        yield Machines(o3pro_emulator, postgres, stack)


def test_two_machines_one_of_which_is_cut_off(o3pro_emulator: Emulator, machines: Machines) -> None:
    """Of two machines one loses its network, service and all: the other has the jobs; healed, both work on."""
    o3pro_emulator.set_knobs("seconds=45 queued=0")
    network, one = machines.start(1)
    ids = [one.start(f"q {number}") for number in range(6)]
    until(lambda: all(one.do("check_status", job_id)["status"] == "running" for job_id in ids))
    _, other = machines.start(2)
    begun = time.monotonic()
    network.cut()
    until(lambda: sorted(other.do("held")) == sorted(ids))
    assert time.monotonic() - begun < 15
    assert one.do("check_status", ids[0])["success"], "reads come from memory"
    network.heal()
    until(lambda: one.do("held") == [])
    other.kill()
    until(lambda: sorted(one.do("held")) == sorted(ids))
    assert one.do("cancel_job", ids[0])["success"]
    counters = o3pro_emulator.counters()
    assert (counters["accepted"], counters["duplicates"]) == (6, {})


def test_a_machine_is_cut_off_in_the_midst_of_it(o3pro_emulator: Emulator, machines: Machines) -> None:
    """Of two machines that submit and live 300 jobs one is cut off, and healed: all end, within the service's quota."""
    o3pro_emulator.set_knobs(f"seconds=1 queued=0 rpm={A_MINUTE}")
    pause = threading.Event()
    terms: dict[str, Any] = {"lost_after": 2.0, "engine": {"most_at_hand": 40, "requests_per_minute": A_MINUTE}}
    (network, one), _ = machines.start(1, **terms), machines.start(2, **terms)
    witness = Witness(machines.database)
    hosts = [machines.start(number, engine={"worker": False})[1] for number in (1, 2)]
    submitters = [Submitter(host, name, JOBS // 2) for host, name in zip(hosts, "ab", strict=True)]
    pause.wait(4)
    witness.at_rest(one, network.cut)
    one.go_on()
    pause.wait(8)
    witness.works_on()
    network.heal()
    all_end_well(submitters[::-1], o3pro_emulator, witness)


def test_a_host_that_is_cut_off_loses_its_jobs_and_harms_nobody(o3pro_emulator: Emulator, postgres: Postgres) -> None:
    """A worker that no longer reaches the database is replaced in 15 seconds; healed, it works on as one of them."""
    o3pro_emulator.set_knobs("seconds=40 queued=0")
    database = postgres.database()
    with ExitStack() as stack:
        wire = stack.enter_context(Wire(("127.0.0.1", postgres.port)))
        far = database.replace(f":{postgres.port}/", f":{wire.port}/")
        one = stack.enter_context(Host(o3pro_emulator, database, engine={"worker": False}))
        cut_off = stack.enter_context(Host(o3pro_emulator, far))
        ids = [one.start(f"q {number}") for number in range(10)]
        until(lambda: all(one.do("check_status", job_id)["status"] == "running" for job_id in ids))
        other = stack.enter_context(Host(o3pro_emulator, database)).opened()
        begun = time.monotonic()
        wire.cut()
        until(lambda: sorted(other.do("held")) == sorted(ids))
        assert time.monotonic() - begun < 15
        assert cut_off.do("check_status", ids[0])["status"] == "running", "reads come from memory"
        wire.heal()
        until(lambda: cut_off.do("held") == [])
        other.kill()
        until(lambda: sorted(cut_off.do("held")) == sorted(ids))
        assert one.do("cancel_job", ids[0])["success"]
    counters = o3pro_emulator.counters()
    assert (counters["accepted"], counters["duplicates"]) == (10, {})
