"""Where the command finds things: the file of the jobs, the configuration, the language."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from o3pro_bg.cli._exits import Exit, Stop

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from o3pro_bg.config import O3ProConfig
    from o3pro_bg.handler import BackgroundHandler

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Every effort that some model takes; which of them this deployment takes, the service says, and bills nothing."""


def home(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Answer the directory of the command's files: `O3PRO_BG_HOME`, or the platform's place for state."""
    if chosen := environ.get("O3PRO_BG_HOME"):
        return Path(chosen).expanduser()
    if platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "o3pro-bg"
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "o3pro-bg"
    state = environ.get("XDG_STATE_HOME", "")  # by its specification, a path that is not absolute is to be ignored
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state") / "o3pro-bg"


def store_of(arguments: argparse.Namespace) -> str:
    """Answer the path of the file that keeps the jobs."""
    return str(arguments.store or home() / "jobs.db")


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
    if not os.path.isfile(path):
        raise Stop(Exit.CONFIGURATION, f"--env-file: there is no file {path}")
    load_dotenv(path)


def config_of(arguments: argparse.Namespace) -> O3ProConfig:
    """Answer the configuration: the environment's, and what the arguments say otherwise."""
    from o3pro_bg.config import O3ProConfig

    return O3ProConfig(endpoint=arguments.endpoint or "", deployment=arguments.deployment or "", efforts=EFFORTS)


def handler_of(arguments: argparse.Namespace, max_concurrency: int | None = None) -> BackgroundHandler:
    """
    Answer a handler of the command's jobs, which takes up those that nobody lives.

    Raises `Stop` where the configuration makes no client.
    """
    from o3pro_bg.client import O3ProClient
    from o3pro_bg.handler import BackgroundHandler

    config = config_of(arguments)
    if problems := config.validate():
        raise Stop(Exit.CONFIGURATION, "\n".join([*problems, "(o3pro-bg doctor looks at all of it)"]))
    return BackgroundHandler(
        O3ProClient(config), store=store_of(arguments), language=language(), max_concurrency=max_concurrency
    )
