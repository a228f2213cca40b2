"""
Background jobs for Azure OpenAI reasoning models: submit, walk away, come back for the answer, cancel for real.

`BackgroundHandler` is for scripts and threads, `AsyncBackgroundHandler` for asynchronous applications; both
take an `O3ProClient`. Everything here is loaded when it is first used, so that the import costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from o3pro_bg._dbos.engine import DbosEngine as DbosEngine
    from o3pro_bg._pacing import Pace as Pace
    from o3pro_bg._prices import PRICES as PRICES
    from o3pro_bg._prices import Price as Price
    from o3pro_bg._records import Usage as Usage
    from o3pro_bg._settings import Settings as Settings
    from o3pro_bg._sqlite.store import SqliteStore as SqliteStore
    from o3pro_bg._states import JobStatus as JobStatus
    from o3pro_bg.aio import AsyncBackgroundHandler as AsyncBackgroundHandler
    from o3pro_bg.client import O3ProClient as O3ProClient
    from o3pro_bg.config import O3ProConfig as O3ProConfig
    from o3pro_bg.errors import ConfigError as ConfigError
    from o3pro_bg.errors import DeadlineExceeded as DeadlineExceeded
    from o3pro_bg.errors import HandlerClosed as HandlerClosed
    from o3pro_bg.errors import InvalidRequest as InvalidRequest
    from o3pro_bg.errors import JobCancelled as JobCancelled
    from o3pro_bg.errors import JobFailed as JobFailed
    from o3pro_bg.errors import JobLost as JobLost
    from o3pro_bg.errors import JobNotFinished as JobNotFinished
    from o3pro_bg.errors import JobNotFound as JobNotFound
    from o3pro_bg.errors import O3ProError as O3ProError
    from o3pro_bg.errors import StoreError as StoreError
    from o3pro_bg.errors import SubmissionUncertain as SubmissionUncertain
    from o3pro_bg.errors import WrongThread as WrongThread
    from o3pro_bg.handler import BackgroundHandler as BackgroundHandler
    from o3pro_bg.job import AsyncJob as AsyncJob
    from o3pro_bg.job import Job as Job

_ERRORS = (
    "ConfigError DeadlineExceeded HandlerClosed InvalidRequest JobCancelled JobFailed JobLost JobNotFinished "
    "JobNotFound O3ProError StoreError SubmissionUncertain WrongThread"
)
_HOMES = {
    "AsyncBackgroundHandler": "aio",
    "AsyncJob": "job",
    "BackgroundHandler": "handler",
    "DbosEngine": "_dbos.engine",
    "Job": "job",
    "JobStatus": "_states",
    "O3ProClient": "client",
    "O3ProConfig": "config",
    "PRICES": "_prices",
    "Pace": "_pacing",
    "Price": "_prices",
    "Settings": "_settings",
    "SqliteStore": "_sqlite.store",
    "Usage": "_records",
} | dict.fromkeys(_ERRORS.split(), "errors")

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
