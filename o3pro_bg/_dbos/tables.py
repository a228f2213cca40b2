"""
What is done with the tables of the jobs: a journal works with them as with the file of the store on disk.

Every transaction that writes locks the one row of `meta` first: so whatever is decided in one is decided on the truth,
whichever host it comes from.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from o3pro_bg._dbos.schema import VERSION, Schema
from o3pro_bg._sqlite.rows import crc_of, row_from
from o3pro_bg.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from o3pro_bg._dbos.database import Database
    from o3pro_bg._sqlite.rows import Row

_PATIENCE: Final = 10.0  # seconds in which it has to be found out whether a transaction was committed
_AGAIN: Final = 0.2  # seconds until that is tried again


class InDoubtError(StoreError):
    """Nobody can tell, for now, whether a transaction was committed."""


class JobTables:
    """
    The tables, for one thread.

    Whatever the database has against something is a `StoreError` that names the database, the cause and the way out.

    Args:
        database: Where they are.

    Attributes:
        connection: That of the transaction under way.
        evidence: What tells, over a connection, whether the transaction under way was committed; None where its failure
            may be told of one that was.
        told: Has every fault be a `StoreError`.
    """

    def __init__(self, database: Database) -> None:
        self.path = database.place
        self.told = database.told
        self.connection: sa.Connection
        self.evidence: Callable[[sa.Connection], bool] | None = None
        self._database = database
        self._now = database.now
        self._texts: dict[int, tuple[str, int]] = {}  # of requests that were read beforehand
        schema = Schema(database.schema)
        self._metadata = schema.metadata
        self._meta, self._jobs, self._requests, self._owners = schema.meta, schema.jobs, schema.requests, schema.owners
        self._columns = [
            self._jobs.c[name]
            for name in ("number", "job_id", "endpoint", "state", "state_crc", "ended", "cancel_requested_at", "epoch")
        ]

    def prepare(self) -> None:
        """Make the tables that are missing; raises `StoreError` where they are of a later version."""
        self._database.prepare(self._metadata, self._begin)

    def _begin(self, connection: sa.Connection) -> None:
        version = connection.execute(sa.select(self._meta.c.version)).scalar()
        if version is None:
            connection.execute(sa.insert(self._meta).values(one=1, version=VERSION, seq=0, removals=0))
        elif version > VERSION:
            raise StoreError(
                f"the job store {self.path}: it is of version {version}, and this o3pro_bg reads versions up to "
                f"{VERSION}: upgrade it"
            )

    def check(self) -> None:
        """A database looks after itself."""

    def rest(self) -> None:
        """Have no connection until one is needed again."""
        self._database.close()

    def wipe(self) -> None:
        """What was removed is the database's to overwrite."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        """See the tables; each statement sees all that was committed before it."""
        with self._transaction(only_reads=True):
            yield

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[None]:
        """
        Change the tables in one transaction, alone; it outlives a crash of the database's host if `durable`.

        Where there is `evidence` of it, a commit whose answer is lost is looked for. Then `StoreError` says that
        nothing is kept, and never will be; an `InDoubtError`, that this cannot be told.
        """
        self.evidence, is_at_its_end = None, False
        try:
            with self._alone(durable=durable):
                yield
                is_at_its_end = True  # so only the commit can still fail
        except StoreError:
            if not is_at_its_end or self.evidence is None or not self._is_kept(self.evidence):
                raise

    @contextmanager
    def _alone(self, *, durable: bool) -> Iterator[None]:
        with self._transaction(only_reads=False):
            if not self._database.is_sqlite:
                if not durable:
                    self._do(sa.text("SET LOCAL synchronous_commit = off"))
                self._do(sa.select(self._meta.c.one).with_for_update())
            yield

    def _is_kept(self, evidence: Callable[[sa.Connection], bool]) -> bool:
        """Tell what became of a transaction whose commit failed: whoever is alone after it sees how it ended."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                with self._alone(durable=False):
                    return evidence(self.connection)
            except StoreError as trouble:
                if time.monotonic() > deadline:
                    raise InDoubtError(f"{trouble}; if a job was kept, it is withdrawn") from None
            time.sleep(_AGAIN)

    @contextmanager
    def _transaction(self, *, only_reads: bool) -> Iterator[None]:
        options: dict[str, Any] = {"only_reads": only_reads}
        if only_reads and not self._database.is_sqlite:
            options["isolation_level"] = "AUTOCOMMIT"
        with self.told(), self._database.engine.connect() as connection:
            self.connection = connection.execution_options(**options)
            with connection.begin():
                yield

    def counters(self) -> tuple[int, int]:
        """Answer how many transactions changed a job, and how many jobs were removed."""
        seq, removals = self._do(sa.select(self._meta.c.seq, self._meta.c.removals)).one()
        return seq, removals

    def count(self, seq: int, removals: int) -> None:
        """Set the counters."""
        self._do(sa.update(self._meta).values(seq=seq, removals=removals))

    def rows_since(self, seq: int) -> Iterator[Row]:
        """Answer the jobs that changed after that transaction, the oldest job first."""
        jobs, requests = self._jobs.c, self._requests.c
        if seq < 0:  # of all jobs, which are new then: one by one would take a round trip each
            read = self._do(sa.select(requests.number, requests.request, requests.request_crc))
            self._texts = {number: (text, crc) for number, text, crc in read}
        try:
            for found in self._do(sa.select(*self._columns).where(jobs.seq > seq).order_by(jobs.number)).all():
                yield row_from(*found)
        finally:
            self._texts = {}

    def job_ids(self) -> set[str]:
        """Answer the ids of all jobs."""
        return set(self._do(sa.select(self._jobs.c.job_id)).scalars())

    def request(self, row: Row) -> str | None:
        """Answer the text of a job's request, or None where it is damaged."""
        requests = self._requests.c
        which = requests.number == row.number
        found = (
            self._texts.get(row.number)
            or self._do(sa.select(requests.request, requests.request_crc).where(which)).one_or_none()
        )
        return None if found is None or crc_of(row.job_id, found[0]) != found[1] else str(found[0])

    def find(self, job_id: str, endpoint: str, dedupe_key: str | None) -> Row | None:
        """Answer the job with this key, or else with this id."""
        jobs, found = self._jobs.c, None
        if dedupe_key is not None:
            has_key = (jobs.endpoint == endpoint) & (jobs.dedupe == _digest(dedupe_key))
            found = self._do(sa.select(*self._columns).where(has_key)).one_or_none()
        found = found or self._do(sa.select(*self._columns).where(jobs.job_id == job_id)).one_or_none()
        return None if found is None else row_from(*found)

    def insert(self, row: Row, dedupe_key: str | None, request: str, owner: str | None, seq: int) -> int:
        """Add a job that this owner holds, if any, and answer its number."""
        state = str(row.state)
        values = {
            "job_id": row.job_id,
            "endpoint": row.endpoint,
            "dedupe": None if dedupe_key is None else _digest(dedupe_key),
            "state": state,
            "state_crc": crc_of(row.job_id, state),
            "ended": int(row.ended),
            "cancel_requested_at": row.cancel_requested_at,
            "owner": owner,
            "epoch": row.epoch,
            "first_epoch": row.epoch,
            "seq": seq,
        }
        number: int = self._do(sa.insert(self._jobs).values(values).returning(self._jobs.c.number)).scalar_one()
        self._do(
            sa.insert(self._requests).values(number=number, request=request, request_crc=crc_of(row.job_id, request))
        )
        return number

    def set_due(self, number: int, seconds: float) -> None:
        """Note that a job has to have ended in so many seconds, by a clock that all hosts share."""
        self._do(sa.update(self._jobs).where(self._jobs.c.number == number).values(due_at=self._now() + seconds))

    def set_sent(self, number: int, *, is_sent: bool) -> None:
        """Note whether the service may have a job that nobody holds."""
        self._do(sa.update(self._jobs).where(self._jobs.c.number == number).values(is_sent=int(is_sent)))

    def epochs(self, number: int) -> range:
        """Answer the epochs in which a job was dealt out."""
        found = self._do(sa.select(self._jobs.c.first_epoch, self._jobs.c.epoch).where(self._jobs.c.number == number))
        first, last = found.one_or_none() or (0, -1)
        return range(first, last + 1)

    def update(self, row: Row, seq: int, *, if_free: bool = False) -> bool:
        """Write the state of a job; False where there is none of this epoch, or, `if_free`, somebody holds it."""
        jobs, state = self._jobs.c, str(row.state)
        which = (jobs.number == row.number) & (jobs.job_id == row.job_id) & (jobs.epoch == row.epoch)
        if if_free:
            which &= jobs.owner.is_(None)
        values = {"state": state, "state_crc": crc_of(row.job_id, state), "ended": int(row.ended), "seq": seq}
        return self._changes(sa.update(self._jobs).where(which).values(values))

    def wish(self, number: int, at: float | None, seq: int) -> bool:
        """Set or withdraw the wish to cancel; False where there is no such job, or it has ended."""
        which = (self._jobs.c.number == number) & (self._jobs.c.ended == 0)
        return self._changes(sa.update(self._jobs).where(which).values(cancel_requested_at=at, seq=seq))

    def remove(self, number: int) -> None:
        """Forget a job."""
        self._do(sa.delete(self._jobs).where(self._jobs.c.number == number))
        self._do(sa.delete(self._requests).where(self._requests.c.number == number))

    def remove_free(self, number: int) -> bool:
        """Forget a job that nobody holds; False where somebody does."""
        if is_free := self._changes(
            sa.delete(self._jobs).where(self._jobs.c.number == number, self._jobs.c.owner.is_(None))
        ):
            self.remove(number)
        return is_free

    def hand_over(self, number: int, owner: str | None, epoch: int, seq: int) -> None:
        """Set who holds a job, and since which epoch."""
        which = self._jobs.c.number == number
        self._do(sa.update(self._jobs).where(which).values(owner=owner, epoch=epoch, seq=seq))

    def take(self, number: int, owner: str, epoch: int, seq: int) -> bool:
        """Have this owner hold a job that was dealt out in this epoch; False where another does, or it has ended."""
        jobs = self._jobs.c
        which = (jobs.number == number) & (jobs.epoch == epoch) & (jobs.ended == 0)
        is_free = jobs.owner.is_(None) | (jobs.owner == owner)
        return self._changes(sa.update(self._jobs).where(which & is_free).values(owner=owner, seq=seq))

    def held_of(self, endpoint: str) -> int:
        """Answer how many jobs of this service somebody who beats holds, or somebody has sent."""
        jobs = self._jobs.c
        is_under_way = jobs.owner.in_(sa.select(self._owners.c.owner)) | (jobs.owner.is_(None) & (jobs.is_sent == 1))
        is_held = (jobs.endpoint == endpoint) & (jobs.ended == 0) & is_under_way
        return int(self._do(sa.select(sa.func.count()).select_from(self._jobs).where(is_held)).scalar_one())

    def free(self, endpoint: str) -> list[str]:
        """Answer the jobs, of whatever service, whose owner is buried; `endpoint` is that of who asks."""
        del endpoint
        jobs = self._jobs.c
        is_orphaned = jobs.owner.is_not(None) & jobs.owner.not_in(sa.select(self._owners.c.owner))
        return list(
            self._do(sa.select(jobs.job_id).where(jobs.ended == 0, is_orphaned).order_by(jobs.number)).scalars()
        )

    def overdue(self) -> list[str]:
        """Answer the jobs that nobody holds, and that had to end before now."""
        jobs = self._jobs.c
        is_overdue = (jobs.ended == 0) & jobs.owner.is_(None) & (jobs.due_at < self._now())
        return list(self._do(sa.select(jobs.job_id).where(is_overdue)).scalars())

    def stranded(self, is_dealt: Callable[[Any, Any], sa.ColumnElement[bool]]) -> list[tuple[str, int]]:
        """Answer the jobs, with their epochs, that nobody holds and of which `is_dealt` is not true."""
        jobs = self._jobs.c
        is_free = (jobs.ended == 0) & jobs.owner.is_(None)
        found = self._do(sa.select(jobs.job_id, jobs.epoch).where(is_free, ~is_dealt(jobs.job_id, jobs.epoch)))
        return [(job_id, epoch) for job_id, epoch in found]

    def dealt(self) -> dict[str, tuple[int, bool]]:
        """Answer the epoch of every job that has not ended, and whether somebody holds it."""
        jobs = self._jobs.c
        found = self._do(sa.select(jobs.job_id, jobs.epoch, jobs.owner.is_not(None)).where(jobs.ended == 0))
        return {job_id: (epoch, bool(is_held)) for job_id, epoch, is_held in found}

    def dealt_as(self, job_id: str) -> tuple[int, bool] | None:
        """Answer the epoch of a job, and whether somebody holds it; None where it has ended, or is gone."""
        jobs = self._jobs.c
        which = (jobs.job_id == job_id) & (jobs.ended == 0)
        found = self._do(sa.select(jobs.epoch, jobs.owner.is_not(None)).where(which)).first()
        return None if found is None else (found[0], bool(found[1]))

    def held(self) -> list[tuple[str, str]]:
        """Answer the jobs that have not ended and whose owner beats, each with that owner."""
        jobs = self._jobs.c
        beats = jobs.owner.in_(sa.select(self._owners.c.owner))
        return [
            (job_id, owner)
            for job_id, owner in self._do(sa.select(jobs.job_id, jobs.owner).where(jobs.ended == 0, beats))
        ]

    def beats(self, pace: float) -> dict[str, tuple[int, float]]:
        """Answer how often each owner has beaten, and how many beats of this pace one of his takes."""
        owners = self._owners.c
        return {
            owner: (beat, its / pace)
            for owner, beat, its in self._do(sa.select(owners.owner, owners.beat, owners.pace))
        }

    def beat(self, owner: str, pace: float) -> None:
        """Count one more beat of this owner, who beats every so many seconds."""
        which = self._owners.c.owner == owner
        if not self._changes(sa.update(self._owners).where(which).values(beat=self._owners.c.beat + 1)):
            self._do(sa.insert(self._owners).values(owner=owner, beat=1, pace=pace))

    def bury(self, owner: str) -> None:
        """Forget an owner: what he held is to be dealt out anew."""
        self._do(sa.delete(self._owners).where(self._owners.c.owner == owner))

    def _do(self, statement: Any) -> Any:
        return self.connection.execute(statement)

    def _changes(self, statement: Any) -> bool:
        return bool(self._do(statement).rowcount)


def _digest(key: str) -> str:
    """Answer what stands for a key, which may be longer, and stranger, than a database indexes."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
