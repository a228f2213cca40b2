"""Where the command finds things: the file of the jobs, the configuration, the language."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from o3pro_bg.cli._exits import Exit, Stop

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from o3pro_bg._dbos.engine import DbosEngine
    from o3pro_bg._records import JobRecord
    from o3pro_bg._settings import Settings
    from o3pro_bg._stores import Store
    from o3pro_bg.client import O3ProClient
    from o3pro_bg.config import O3ProConfig
    from o3pro_bg.handler import BackgroundHandler

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Every effort that some model takes; which of them this deployment takes, the service says, and bills nothing."""


GLANCE: Final = 10.0
"""Seconds in which a handler that closes has the service asked once about what it took up."""


def home(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Answer the directory of the command's files: `O3PRO_BG_HOME`, or the platform's place for state."""
    if chosen := environ.get("O3PRO_BG_HOME"):
        return Path(os.path.expanduser(chosen))
    if platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "o3pro-bg"
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "o3pro-bg"
    state = environ.get("XDG_STATE_HOME", "")  # by its specification, a path that is not absolute is to be ignored
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state") / "o3pro-bg"


def path_of(arguments: argparse.Namespace) -> str:
    """Answer what is given as the path of that file, or chosen for want of one."""
    return str(arguments.store or home() / "jobs.db")


def store_of(arguments: argparse.Namespace) -> str:
    """Answer the path of the file that keeps the jobs; raises `Stop` where it can be none."""
    from o3pro_bg._sqlite.place import absolute

    try:
        return absolute(path_of(arguments))
    except ValueError as exc:
        raise Stop(Exit.CONFIGURATION, str(exc)) from None


def database_of(arguments: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> str | None:
    """Answer the URL of the database that keeps the jobs, or None where a file does."""
    if arguments.store is not None:
        return None
    return arguments.database or environ.get("O3PRO_BG_DATABASE") or None


def language(environ: Mapping[str, str] = os.environ) -> Literal["ja", "en"]:
    """Answer the language of the replies' sentences: that of the environment where it is Japanese, else English."""
    chosen = next((environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environ.get(name)), "")
    return "ja" if chosen.lower().startswith("ja") else "en"


def read_env_file(path: str) -> None:
    """Put what a `.env` file sets into the environment, as far as it is not set there; raises `Stop`."""
    try:
        from dotenv import load_dotenv
    except ImportError:
        raise Stop(
            Exit.CONFIGURATION, "--env-file needs the extra cli: pip install 'o3pro-bg[cli]', or set the variables"
        ) from None
    try:
        with open(path, encoding="utf-8-sig") as file:
            load_dotenv(stream=file)
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is no UTF-8 text"
        raise Stop(Exit.CONFIGURATION, f"--env-file {path} cannot be read: {why}") from None


def config_of(arguments: argparse.Namespace) -> O3ProConfig:
    """Answer the configuration: the environment's, and what the arguments say otherwise."""
    from o3pro_bg.config import O3ProConfig

    return O3ProConfig(endpoint=arguments.endpoint or "", deployment=arguments.deployment or "", efforts=EFFORTS)


def check_endpoint(record: JobRecord, config: O3ProConfig) -> None:
    """Raise `Stop` where a job under way is another endpoint's than the configured one: nobody can be asked there."""
    if not record.status.is_terminal and record.request.endpoint != config.resource:
        where = record.request.endpoint or "another endpoint"
        raise Stop(
            Exit.CONFIGURATION,
            f"job {record.job_id[:8]} belongs to {where}: set AZURE_OPENAI_ENDPOINT to it, or give it as --endpoint",
        )


def handler_of(arguments: argparse.Namespace, max_concurrency: int | None = None) -> BackgroundHandler:
    """
    Answer a handler of the command's jobs, which takes up those that nobody lives.

    Raises `Stop` where the configuration makes no client.
    """
    from o3pro_bg.handler import BackgroundHandler

    client = client_of(arguments)
    settings: Settings = {"language": language(), "max_concurrency": max_concurrency, **place_of(arguments)}
    return BackgroundHandler(client, **settings)


def client_of(arguments: argparse.Namespace) -> O3ProClient:
    """Answer a client of the configuration; raises `Stop` where it makes none."""
    from o3pro_bg.client import O3ProClient

    config = config_of(arguments)
    if problems := config.validate():
        raise Stop(Exit.CONFIGURATION, "\n".join([*problems, "(o3pro-bg doctor looks at all of it)"]))
    return O3ProClient(config)


def place_of(arguments: argparse.Namespace) -> Settings:
    """Answer the settings that say where the jobs are; raises `Stop` where they can be nowhere."""
    if (database := database_of(arguments)) is None:
        return {"store": store_of(arguments)}
    return {"engine": engine_of(database, worker=False)}  # `o3pro-bg worker` lives them


def opened_store(arguments: argparse.Namespace) -> Store:
    """Answer the store of the command's jobs, of which nothing is lived here; raises `Stop`, `StoreError`."""
    from o3pro_bg._settings import store_from

    store = store_from(place_of(arguments))
    store.open("", lambda _: None).result()  # of no endpoint: it takes up no job
    return store


def engine_of(database: str, **terms: Any) -> DbosEngine:
    """Answer the engine over this database; raises `Stop` where there can be none."""
    from o3pro_bg._dbos.engine import DbosEngine
    from o3pro_bg.errors import ConfigError

    try:
        return DbosEngine(database, **terms)
    except (ConfigError, ValueError) as exc:
        raise Stop(Exit.CONFIGURATION, str(exc)) from None
