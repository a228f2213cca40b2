"""
The pace that all hosts keep together: the creates of a deployment leave one by one, whichever host they come from.

Each takes the next place of an even stream, which is a row of the database; what the service says to one host (its
limit of requests, a 429) holds for all. Within a host its `RateBudget` rules as ever, over tokens too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from anyio import to_thread

from o3pro_bg._records import Failure
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg.errors import StoreError

if TYPE_CHECKING:
    from o3pro_bg._dbos.database import Database
    from o3pro_bg._records import JobRequest, News
    from o3pro_bg._remote import Remote

_MINUTE: Final = 60.0
_JITTER: Final = 1.0  # seconds by which creates may arrive nearer to each other than they left
_AT_LEAST: Final = 1.0  # seconds for which a 429 that names no time, or 0, keeps the others back


class SharedPace:
    """
    Where the creates of a deployment stand.

    Args:
        database: Where that is written.
        door: Which deployment, of which service.
        most: Creates a minute, or None where the service's headers alone tell.
    """

    def __init__(self, database: Database, door: str, most: float | None) -> None:
        self._database = database
        self._most = most
        self._told: float | None = None
        self._table = pace_table(sa.MetaData(schema=database.schema))
        self._is_ours = self._table.c.door == door
        self._door = door

    def take(self) -> float:
        """Take the next place; answer the seconds until then. Raises `StoreError`."""
        row, now = self._table.c, self._database.now()
        latest = sa.func.max if self._database.is_sqlite else sa.func.greatest
        limit = row.told if self._most is None else sa.func.coalesce(self._least(row.told, self._most), self._most)
        step = sa.func.coalesce((_MINUTE + _JITTER) / limit, 0.0)
        place = latest(latest(row.next_at, row.opens_at), now)
        update = sa.update(self._table).where(self._is_ours).values(next_at=place + step)
        with self._database.told(), self._database.engine.begin() as connection:
            told = connection.execute(update.returning(row.next_at - step - now)).scalar()
            if told is None:  # nobody was here before
                self._begin(connection)
                told = connection.execute(update.returning(row.next_at - step - now)).scalar_one()
        return max(0.0, float(told))

    def closed(self) -> float:
        """Answer the seconds for which a 429 keeps all creates back. Raises `StoreError`."""
        statement = sa.select(self._table.c.opens_at - self._database.now()).where(self._is_ours)
        with self._database.told(), self._database.engine.begin() as connection:
            return max(0.0, float(connection.execute(statement).scalar() or 0.0))

    def hear(self, requests: float | None, pause: float) -> None:
        """Note what the service allows in a minute, if it told, and for how long it refuses. Raises `StoreError`."""
        if pause <= 0 and requests in (None, self._told):
            return
        latest = sa.func.max if self._database.is_sqlite else sa.func.greatest
        values: dict[str, Any] = {"opens_at": latest(self._table.c.opens_at, self._database.now() + pause)}
        if requests is not None:
            self._told = values["told"] = requests
        with self._database.told(), self._database.engine.begin() as connection:
            connection.execute(sa.update(self._table).where(self._is_ours).values(values))

    def _least(self, one: Any, other: float) -> Any:
        return sa.func.min(one, other) if self._database.is_sqlite else sa.func.least(one, other)

    def _begin(self, connection: sa.Connection) -> None:
        missing = ~sa.exists().where(self._is_ours)
        row = sa.select(sa.literal(self._door), sa.literal(0.0), sa.literal(0.0)).where(missing)
        if not self._database.is_sqlite:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(8031410073)"))
        connection.execute(sa.insert(self._table).from_select(["door", "next_at", "opens_at"], row))


def pace_table(metadata: sa.MetaData) -> sa.Table:
    """Answer the table of the doors: when the next create may go, when the service opens, what it allows a minute."""
    columns = [sa.Column(name, sa.Double, nullable=name == "told") for name in ("next_at", "opens_at", "told")]
    return sa.Table("o3pro_pace", metadata, sa.Column("door", sa.Text, primary_key=True), *columns)


class PacedRemote:
    """
    The service, to which creates go at the pace of all hosts.

    Args:
        remote: The service.
        pace: The pace.
    """

    def __init__(self, remote: Remote, pace: SharedPace) -> None:
        self.background = remote.background
        self.look, self.cancel, self.delete, self.aclose = remote.look, remote.cancel, remote.delete, remote.aclose
        self._remote = remote
        self._pace = pace

    async def prepare(self) -> None:
        """Get ready what a request needs, and wait for its place; nothing is sent before the database answers."""
        await self._remote.prepare()
        try:
            while (pause := await to_thread.run_sync(self._pace.take)) > 0:
                await asyncio.sleep(pause)
                if await to_thread.run_sync(self._pace.closed) <= 0:
                    return
        except StoreError:
            raise RemoteTrouble(Trouble.UNSENT, Failure("store")) from None

    async def create(self, job_id: str, request: JobRequest) -> News:
        """Send the question, exactly once, and let all hosts know what the service says of its limits."""
        try:
            news = await self._remote.create(job_id, request)
        except RemoteTrouble as trouble:
            if trouble.kind is Trouble.THROTTLED:
                pause = max(trouble.retry_after or 0.0, _AT_LEAST)
                await self._hear(None if trouble.limits is None else trouble.limits.requests, pause)
            raise
        await self._hear(None if news.limits is None else news.limits.requests, 0.0)
        return news

    async def _hear(self, requests: float | None, pause: float) -> None:
        try:
            await to_thread.run_sync(self._pace.hear, requests, pause)
        except StoreError:  # whoever comes next is told again
            return
