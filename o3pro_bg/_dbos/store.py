"""The store that many machines share."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from o3pro_bg._dbos import executor
from o3pro_bg._dbos.asker import Asker
from o3pro_bg._dbos.database import Database
from o3pro_bg._dbos.dealer import Dealer, queue_of
from o3pro_bg._dbos.journal import SharedJournal
from o3pro_bg._dbos.pace import PacedDoor, SharedPace
from o3pro_bg._dbos.stage import Stage
from o3pro_bg._dbos.tables import JobTables
from o3pro_bg._sqlite.store import WrittenStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from o3pro_bg._budget import RateBudget
    from o3pro_bg._door import Door, Slots
    from o3pro_bg._shared import MakeDoor
    from o3pro_bg._sqlite.journal import Journal
    from o3pro_bg._sqlite.mirror import Mirror
    from o3pro_bg._sqlite.writer import Settings


@dataclass(frozen=True, slots=True)
class Terms:
    """
    How a process takes part.

    Attributes:
        url: The database; it may hold a password.
        schema: The PostgreSQL schema of the tables.
        is_worker: Whether jobs are lived here.
        most: The most jobs under way at once, on all hosts together, or None.
        at_hand: The most that this process has.
        a_minute: The most creates a minute of each deployment, on all hosts together, or None.
        lease: Seconds after which the jobs of one that does not show that it lives are dealt out anew.
        poll: Seconds between two looks whether a job waits.
    """

    url: str = field(repr=False)
    schema: str
    is_worker: bool
    most: int | None
    at_hand: int
    a_minute: float | None
    lease: float
    poll: float


class DbosStore(WrittenStore):
    """
    Keeps the jobs in a database that many hosts share; DBOS deals them out to those that live them.

    Reads come from memory; what another process does is seen after 0.2 seconds and a round trip. What this process
    inserts is held by whoever is dealt it, be that this process or another.

    Args:
        terms: How this process takes part.
    """

    def __init__(self, terms: Terms) -> None:
        self._database = Database(terms.url, terms.schema)
        super().__init__(self._database.place, self._opened, store_text=True, lease=terms.lease)
        self._terms = terms
        self._stage = self._mirror = Stage()
        self.queue = ""
        self._asker = Asker()

    def doors(self, resource: str) -> MakeDoor:
        """Answer what makes the doors to a service, whose creates go at the pace of all hosts."""

        def make(deployment: str, budget: RateBudget, slots: Slots, clock: Callable[[], float]) -> Door:
            name = hashlib.sha256(f"{resource}\n{deployment}".encode()).hexdigest()
            pace = SharedPace(self._database, name, self._terms.a_minute)
            return PacedDoor(pace, self._asker, deployment, budget, slots, clock)

        return make

    def claim(self, job_id: str, epoch: int) -> Future[bool]:
        """Hold a job that was dealt to this process; False where it is for another epoch to live it."""
        return self._ask(SharedJournal.claim, job_id, epoch)

    def heed(self, job_id: str, epoch: int) -> Future[bool]:
        """Wish to cancel a job, if it is still held here, in this epoch."""
        return self._ask(SharedJournal.heed, job_id, epoch)

    def getting_on(self, job_id: str, epoch: int, *, to_the_end: bool) -> Future[str]:
        """Answer how far the job has got, once the service has it or, if so asked, once it has ended."""
        return self._stage.getting_on(job_id, epoch, to_the_end=to_the_end)

    def close(self) -> Future[None]:
        """Be dealt nothing more, write what is left, and have what is held here dealt to others."""
        executor.pause(self)
        self._asker.close()
        return super().close()

    def again(self) -> DbosStore:
        """Answer a store of the same database, not opened yet."""
        return DbosStore(self._terms)

    @contextmanager
    def _opened(self, settings: Settings, mirror: Mirror) -> Iterator[Journal]:
        """Be connected, and dealt jobs if this is a worker, for as long as the journal is needed."""
        terms, tables = self._terms, JobTables(self._database)
        with ExitStack() as stack:
            if terms.is_worker:
                executor.check(self._database)
            stack.callback(self._database.close)
            tables.prepare()
            dealer = stack.enter_context(closing(Dealer(self._database)))
            if terms.is_worker and settings.endpoint:  # one without a service has nothing that it could live
                self.queue = queue_of(settings.endpoint)
                with self._database.told():
                    dealer.open_queue(settings.endpoint, most=terms.most, at_hand=terms.at_hand, poll=terms.poll)
                    stack.callback(executor.leave, self)
                    executor.join(self, self._database)
            yield SharedJournal(tables, dealer, mirror, settings, lambda: executor.pause(self))
