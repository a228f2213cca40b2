"""How a handler behaves: the settings that both faces take."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypedDict

from o3pro_bg._door import Door
from o3pro_bg._figures import is_figure, is_positive
from o3pro_bg._pacing import Pace
from o3pro_bg._prices import Price
from o3pro_bg._stores import MemoryStore

if TYPE_CHECKING:
    from o3pro_bg._remote import Client
    from o3pro_bg._sentences import Language
    from o3pro_bg._shared import MakeDoor
    from o3pro_bg._stores import Store


class Machines(Protocol):
    """What has jobs lived on many machines, as `DbosEngine` does."""

    def store(self, *, max_concurrency: int | None) -> Store:
        """Answer a store for one handler, not opened yet."""
        ...


class Settings(TypedDict, total=False):
    """
    How a handler behaves; every setting may be left out.

    Attributes:
        language: The language of the replies' sentences, `"ja"` (default) or `"en"`.
        timeout: Seconds from its start after which a job is cancelled at the service and fails, waits for
            `max_concurrency` included; default none.
        max_concurrency: The most jobs under way at the service at once, not counting those that are taken up or
            attached to: they run already. Default no bound.
        max_in_flight: The most HTTP requests under way at once; default 64. Of creates there are 16 at the most, as
            long as the service does not tell its limits.
        pace: When to look at a job; default `Pace()`.
        engine: A `DbosEngine`: jobs are kept in a database, and lived by the processes of many machines. Then
            `max_concurrency` is that of all of them together, and there is no other `store`.
        store: Where jobs are kept: the path of an SQLite file, or a `SqliteStore`. Its jobs outlive the process; those
            that nobody lives any more are taken up when the store is opened. Default in memory.
        retain: How many ended jobs to keep at the most (int), or for how long (timedelta); default until removed. An
            answer that is let go before it was read is gone.
        delete_remote: Whether a job that is forgotten (by `retain`, `remove_job` or `clear_finished`) is also deleted
            at the service; default not, and the service keeps a response for 30 days.
        on_close: `"cancel"` cancels jobs under way when the handler closes, `"detach"` leaves them running at the
            service. Default is to detach with a store, and to cancel without. With an `engine` it is about the jobs
            that this process lives, whoever submitted them: those that wait for a worker, or are lived by another
            process, go on.
        resubmit_uncertain: Send a create again that may have been accepted, and so perhaps pay twice.
        lost_after: Seconds for which the service has to deny a response before its job fails, and for which a process
            that was taken for dead may still tell the id of one whose question was leaving; default 30.
        prices: What `Job.cost` estimates with, by model or deployment, before the built-in table.
    """

    language: Language
    timeout: float | None
    max_concurrency: int | None
    max_in_flight: int
    pace: Pace
    engine: Machines | None
    store: str | os.PathLike[str] | Store | None
    retain: int | timedelta | None
    delete_remote: bool
    on_close: Literal["cancel", "detach"]
    resubmit_uncertain: bool
    lost_after: float
    prices: Mapping[str, Price]


PASSED_ON: Final = (
    "pace",
    "max_concurrency",
    "max_in_flight",
    "resubmit_uncertain",
    "lost_after",
    "delete_remote",
    "prices",
)


def check(settings: Settings) -> None:
    """Raise TypeError or ValueError, with a sentence, for settings that are none."""
    if unknown := {*settings} - {*Settings.__annotations__}:
        raise TypeError(f"unknown setting: {', '.join(sorted(unknown))}")
    if settings.get("language", "ja") not in ("ja", "en"):
        raise ValueError('language has to be "ja" or "en"')
    if settings.get("on_close", "cancel") not in ("cancel", "detach"):
        raise ValueError('on_close has to be "cancel" or "detach"')
    if not isinstance(pace := settings.get("pace", Pace()), Pace):
        raise TypeError(f"pace has to be a Pace, such as Pace(floor=2, ceiling=5), not {type(pace)}")
    prices: object = settings.get("prices", {})
    if not isinstance(prices, Mapping) or not all(_is_price(*pair) for pair in prices.items()):
        raise TypeError("prices has to map names to Price objects, such as Price(input=20, output=80)")
    for name in ("delete_remote", "resubmit_uncertain"):  # "no" is true, and would delete, or pay twice
        if not isinstance(settings.get(name, False), bool):
            raise TypeError(f"{name} has to be True or False")
    if (engine := settings.get("engine")) is not None:
        _check_engine(engine, settings.get("store"))
    _check_figures(settings)


def _check_engine(engine: object, store: object) -> None:
    if isinstance(engine, type) or not hasattr(engine, "store"):
        raise TypeError(f"engine has to be a DbosEngine, not {type(engine)}")
    if store is not None:
        raise ValueError("engine= keeps the jobs in its database: leave store= out")


def _is_price(name: object, price: object) -> bool:
    return isinstance(name, str) and isinstance(price, Price)


def _check_figures(settings: Settings) -> None:
    retain = settings.get("retain")
    figures = {
        "retain": retain.total_seconds() if isinstance(retain, timedelta) else retain,
        **{name: settings.get(name) for name in ("timeout", "max_concurrency")},
        "max_in_flight": settings.get("max_in_flight", 64),
        "lost_after": settings.get("lost_after", 30.0),
    }
    optional = ("retain", "timeout", "max_concurrency")
    for name, figure in figures.items():
        if not is_positive(figure) and not (figure is None and name in optional):
            raise ValueError(f"{name} has to be above 0{', or None' if name in optional else ''}")
        if isinstance(settings.get(name), float) and name in ("retain", "max_concurrency", "max_in_flight"):
            raise ValueError(f"{name} has to be a whole number")


def store_from(settings: Settings) -> Store:
    """Answer the store that the settings mean."""
    if (engine := settings.get("engine")) is not None:
        return engine.store(max_concurrency=settings.get("max_concurrency"))
    if (store := settings.get("store")) is None:
        return MemoryStore()
    if not isinstance(store, str | os.PathLike):
        if isinstance(store, type) or not hasattr(store, "durable"):
            raise TypeError(f"store has to be a path or a SqliteStore, not {type(store)}")
        return store
    from o3pro_bg._sqlite.store import SqliteStore

    return SqliteStore(store)


def makes_doors(client: Client, store: Store) -> MakeDoor:
    """Answer what makes a door to the service; a store that hosts share has its word in how creates go there."""
    doors: Any = getattr(store, "doors", None)
    make: MakeDoor = Door if doors is None else doors(client.config.resource)
    return make


def grace_of(timeout: float) -> float:
    """Answer the seconds that closing may take; raises ValueError where they are none."""
    if not is_figure(timeout):
        raise ValueError("timeout has to be a finite number of seconds, 0 or more")
    return timeout


def patience_with(kind: type[BaseException] | None) -> float:
    """Answer the seconds that closing may take for who leaves by an exception of this kind, or by none."""
    # Ctrl-C, sys.exit and a cancellation are in a hurry.
    return 5.0 if kind is None or issubclass(kind, Exception) else 1.2
