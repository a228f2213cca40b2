"""
The pace that all hosts keep together: the creates of a deployment leave one by one, whichever host they come from.

Each takes the next place of an even stream, which is a row of the database; what the service says to one host (its
limits of requests and tokens, a 429) holds for all. Within a host its `RateBudget` rules as ever.
"""

from __future__ import annotations

import asyncio
import logging
import math
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from o3pro_bg._budget import Limits
from o3pro_bg._door import Door
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from concurrent.futures import Future

    from o3pro_bg._budget import RateBudget, Reservation
    from o3pro_bg._dbos.asker import Asker
    from o3pro_bg._dbos.database import Database
    from o3pro_bg._door import Slots
    from o3pro_bg._line import Waiter
    from o3pro_bg._records import News

log = logging.getLogger("o3pro_bg")

_FRAME: Final = 61.0  # seconds over which a minute's allowance is spread: creates may arrive nearer than they left
_AT_LEAST: Final = 1.0  # seconds for which a 429 that names no time, or 0, keeps the others back
_AGAIN: Final = 0.5  # seconds until the database is asked again that did not answer
_LONG: Final = 1.0  # seconds of a wait that is told
_FRESH: Final = 1.0  # seconds for which a place that has come is used: later it may be too near to another one
_SET_BACK: Final = 1.0  # seconds by which the database's clock has to be behind what it was, to have been set back
_TIMES: Final = ("last_at", "step", "opens_at", "noted_at")
_SAID: Final = ("requests", "tokens")
_LOCK: Final = 8031410073  # of whoever makes a row: any number of ours


class SharedPace:
    """
    Where the creates of a deployment stand.

    Args:
        database: Where that is written.
        door: Which deployment, of which service.
        most: Creates a minute, or None where the service's headers alone tell.

    Attributes:
        told: What the service said lately that it allows in a minute; it is written with the next place, once.
    """

    def __init__(self, database: Database, door: str, most: float | None) -> None:
        self.told = self._written = Limits()
        self._database = database
        self._most = most
        self._table = pace_table(sa.MetaData(schema=database.schema))
        self._door = door

    def take(self, tokens: int = 0) -> float:
        """
        Take the next place, for a create that counts so many tokens; answer the seconds until then.

        Two creates are as far apart as the larger of them needs: so no minute lets through more than it may. Raises
        `StoreError`.
        """
        with self._row() as row:
            step = self._step(row, tokens)
            place = max(row["last_at"] + max(row["step"], step), row["opens_at"], row["now"])
            if step > 0 or row["step"] > 0:
                row.update(last_at=place, step=step)
            pause: float = place - row["now"]
        return pause

    def closed(self) -> float:
        """Answer the seconds for which a 429 keeps all creates back. Raises `StoreError`."""
        columns = self._table.c
        statement = sa.select(columns.opens_at, columns.noted_at, self._database.now())
        with self._database.told(), self._database.engine.connect() as connection:
            reading = connection.execution_options(only_reads=True)
            found = reading.execute(statement.where(columns.door == self._door)).one_or_none()
        opens_at, noted_at, now = found or (0.0, 0.0, 0.0)
        return max(0.0, float(opens_at - max(noted_at, now)))  # the clock may have been set back

    def refused(self, pause: float) -> None:
        """Note for how long the service refuses creates. Raises `StoreError`."""
        with self._row() as row:
            row.update(opens_at=max(row["opens_at"], row["now"] + pause))

    def _step(self, row: dict[str, Any], tokens: int) -> float:
        """Answer the seconds that have to lie between two such creates."""
        requests = min((limit for limit in (row["requests"], self._most) if limit is not None), default=None)
        step = 0.0 if requests is None else _FRAME / requests
        if row["tokens"] is not None and tokens:  # what is too much for a minute goes alone
            step = max(step, _FRAME / max(row["tokens"] // tokens, 1))
        return step

    @contextmanager
    def _row(self) -> Iterator[dict[str, Any]]:
        """
        Have the row to oneself, with the time, and what the service said; what is changed of it is written.

        Where the database's clock was set back, what is still to come in the row is set back as well.
        """
        is_ours = self._table.c.door == self._door
        statement = sa.select(self._table, self._database.now().label("now")).where(is_ours).with_for_update()
        said = self.told
        with self._database.told(), self._database.engine.begin() as connection:
            if (found := connection.execute(statement).mappings().first()) is None:  # nobody was here before
                self._begin(connection)
                found = connection.execute(statement).mappings().one()
            row = dict(found)
            if (behind := row["noted_at"] - row["now"]) > _SET_BACK:
                row.update(last_at=row["last_at"] - behind, opens_at=row["opens_at"] - behind)
            if said is not self._written:
                row.update({name: limit for name in _SAID if (limit := getattr(said, name)) is not None})
            yield row
            if changed := {name: value for name, value in row.items() if value != found[name]}:
                changed["noted_at"] = row["now"]
                connection.execute(sa.update(self._table).where(is_ours).values(changed))
        self._written = said  # only now: it may have failed

    def _begin(self, connection: sa.Connection) -> None:
        zeros = [sa.literal(0.0)] * len(_TIMES)
        row = sa.select(sa.literal(self._door), *zeros).where(~sa.exists().where(self._table.c.door == self._door))
        if not self._database.is_sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        connection.execute(sa.insert(self._table).from_select(["door", *_TIMES], row))


def pace_table(metadata: sa.MetaData) -> sa.Table:
    """
    Answer the table of the doors.

    When the last create went, the seconds that it keeps from others, when the service opens, when the row was last
    written, and what the service allows a minute.
    """
    columns = [sa.Column(name, sa.Double, nullable=name in _SAID) for name in (*_TIMES, *_SAID)]
    return sa.Table("o3pro_pace", metadata, sa.Column("door", sa.Text, primary_key=True), *columns)


class PacedDoor(Door):
    """
    A door whose creates go at the pace of all hosts: each of them with a place, which is asked for as it is needed.

    A place is the door's, and nobody's in the line: whoever is first when it has come goes with it, and who leaves the
    line takes none along. One at most is asked for, to come or at hand. It is asked for in another thread, and by no
    task: nobody is waited for who may leave meanwhile, and nothing is left over where the loop ends.

    Args:
        pace: The pace.
        asker: Asks it.
        name: The deployment, for the log.
        budget: When the next one may go, of this host's.
        slots: Bounds those who have gone.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        pace: SharedPace,
        asker: Asker,
        name: str,
        budget: RateBudget,
        slots: Slots,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(name, budget, slots, clock)
        self._pace = pace
        self._asker = asker
        self._tokens = 0  # that the place counts
        self._is_coming = False  # it was asked for, and is not at hand yet
        self._is_long = False  # the wait for it
        self._came_at = -math.inf  # when it was at hand

    async def send(self, waiter: Waiter, create: Callable[[Reservation], Awaitable[News]]) -> News:
        """Send a create in its turn, and answer the news that it brings; what it tells of the limits is for all."""

        async def heard(reservation: Reservation) -> News:
            try:
                news = await create(reservation)
            except RemoteTrouble as trouble:
                self._hear(trouble.limits)
                if trouble.kind is Trouble.THROTTLED:
                    self._refuse(max(trouble.retry_after or 0.0, _AT_LEAST))
                raise
            self._hear(news.limits)  # which is written with the next place: nothing may keep the news up
            return news

        return await super().send(waiter, heard)

    def _may_leave(self, waiter: Waiter) -> bool:
        """Tell whether a place is at hand for him, and use it up; else see to it that one comes."""
        age, self._came_at = self._clock() - self._came_at, -math.inf  # a place that is of no use costs nothing
        if age <= _FRESH and self._tokens >= waiter.need:
            return True
        if not self._is_coming:
            self._tokens = waiter.need
            self._ask(self._taken, self._pace.take, waiter.need)
        elif self._is_long:
            self._explain("rate_limit")
        return False

    def _ask(self, then: Callable[[float], None], verb: Callable[..., float], *args: int) -> None:
        """Have the database asked, and `then` called with its answer; nothing is sent before that."""
        loop = asyncio.get_running_loop()
        self._is_coming = True

        def answered(asked: Future[float]) -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                loop.call_soon_threadsafe(self._answered, then, asked)

        try:
            self._asker.submit(verb, *args).add_done_callback(answered)
        except RuntimeError:  # the store is closed, or the process ends; or it can have no more threads for now
            loop.call_later(_AGAIN, self._go_on)

    def _answered(self, then: Callable[[float], None], asked: Future[float]) -> None:
        trouble = CancelledError() if asked.cancelled() else asked.exception()  # which, raised here, could end the loop
        if trouble is None:
            then(asked.result())
            return
        if not isinstance(trouble, StoreError | CancelledError):
            log.error("deployment %s: its pace met %s: a bug of o3pro_bg", self._name, type(trouble).__name__)
        # Another place is taken then: by that time this one may be too near to that of another host.
        asyncio.get_running_loop().call_later(_AGAIN, self._go_on)

    def _taken(self, pause: float) -> None:
        """Wait until the place has come, and ask then whether another host was refused meanwhile."""
        if pause <= 0:
            self._looked(0.0)
            return
        if pause > _LONG:
            self._is_long = True
            self._explain("rate_limit")
        asyncio.get_running_loop().call_later(pause, self._ask, self._looked, self._pace.closed)

    def _looked(self, closed: float) -> None:
        if closed <= 0:
            self._came_at = self._clock()
        self._go_on()

    def _go_on(self) -> None:
        """Have whoever is first go with the place that has come; or ask for another one, if anybody waits."""
        self._is_coming = self._is_long = False
        self.let_go()

    def _refuse(self, pause: float) -> None:
        with suppress(RuntimeError):  # as `_ask`; whoever comes next is told again, also where this fails
            self._asker.submit(self._pace.refused, pause)

    def _hear(self, limits: Limits | None) -> None:
        if limits is not None:
            self._pace.told = limits
