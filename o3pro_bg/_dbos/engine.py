"""The engine of many machines, as users name it."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from o3pro_bg._figures import is_figure, is_positive
from o3pro_bg.errors import ConfigError

if TYPE_CHECKING:
    from o3pro_bg._dbos.store import DbosStore

TESTED: Final = "3.4"
"""The versions of DBOS with whose inner parts `executor` was tested: what is launched, its threads, how it ends."""


class DbosEngine:
    """
    Has the jobs of a handler lived on many machines: `BackgroundHandler(client, engine=DbosEngine("postgresql://…"))`.

    All processes that name the same database share their jobs: each of them answers for any job, and cancels it,
    whoever submitted it; those with the same endpoint live them, as DBOS Transact deals them out. A handler's
    `max_concurrency` then bounds the jobs of all hosts together, the creates of a deployment leave at one pace for all
    of them, and a `dedupe_key` is one for all. Of a process that dies, or is cut off, the others have the jobs within
    15 seconds, with whatever is known of them; a job that may have been sent is not sent again.

    The tables are made where they are missing, in the schema that DBOS uses. An application that runs DBOS itself is
    joined, if it does so on the same database and in the same schema. It needs `pip install "o3pro-bg[dbos]"`.

    Args:
        database: Its URL: `postgresql://user:password@host/name`, or `sqlite:///path/to/file` for the processes of one
            machine. It is kept out of every log, repr and exception, but for the host, the user and the name.
        worker: Whether this process lives jobs; one that does not submits, reads, waits and cancels.
        requests_per_minute: The most creates a minute of each deployment, from all hosts together. Default is what the
            service's headers say, and what its 429s teach.
        most_at_hand: The most jobs that this process lives at once.
        lease: Seconds after which the jobs of one that does not show that it lives are dealt out anew, 1 to 6.
        poll: Seconds between two looks whether a job waits to be lived.
        schema: The PostgreSQL schema of the tables.

    Attributes:
        place: The database's URL without its password.

    Raises:
        ConfigError: DBOS is not installed, or in a version with which this was not tested.
        ValueError: That is no URL of such a database, or a figure is out of bounds.
    """

    def __init__(
        self,
        database: str,
        *,
        worker: bool = True,
        requests_per_minute: float | None = None,
        most_at_hand: int = 1000,
        lease: float = 5.0,
        poll: float = 0.5,
        schema: str = "dbos",
    ) -> None:
        try:
            installed = version("dbos")
            if not f"{installed}.".startswith(f"{TESTED}."):
                raise ConfigError(
                    f"DbosEngine works with DBOS {TESTED}, and {installed} is installed: "
                    'pip install "o3pro-bg[dbos]" brings the right one'
                )
            from o3pro_bg._dbos.database import Database
        except ImportError as exc:
            raise ConfigError(
                f'DbosEngine needs DBOS, and there is none ({exc.name}): pip install "o3pro-bg[dbos]"'
            ) from None
        self.place = Database(database, schema).place
        self._url, self._schema, self._worker = database, schema, worker
        self._lease, self._poll, self._a_minute, self._at_hand = lease, poll, requests_per_minute, most_at_hand
        for name, figure in {"lease": lease, "poll": poll, "most_at_hand": most_at_hand}.items():
            if not is_positive(figure):
                raise ValueError(f"{name} has to be above 0")
        if not is_figure(lease) or not 1 <= lease <= 6:
            raise ValueError("lease has to be 1 to 6 seconds: what a host needs to show that it lives, and no longer")
        if requests_per_minute is not None and not is_positive(requests_per_minute):
            raise ValueError("requests_per_minute has to be above 0, or None")

    def __repr__(self) -> str:
        return f"<DbosEngine {self.place!r}{'' if self._worker else ', no worker'}>"

    def store(self, *, max_concurrency: int | None) -> DbosStore:
        """Answer a store for one handler, not opened yet."""
        from o3pro_bg._dbos.store import DbosStore, Terms

        return DbosStore(
            Terms(
                url=self._url,
                schema=self._schema,
                is_worker=self._worker,
                most=max_concurrency,
                at_hand=self._at_hand,
                a_minute=self._a_minute,
                lease=self._lease,
                poll=self._poll,
            )
        )
