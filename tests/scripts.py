"""Scripts that run in an interpreter of their own, and what they print."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from o3pro_bg.emulator import Emulator

_PATIENCE = 60.0  # seconds after which a script is taken to hang


def account_of(emulator: Emulator | None) -> dict[str, str]:
    """Answer the environment in which a client is one of this emulator."""
    if emulator is None:
        return {}
    return {"AZURE_OPENAI_ENDPOINT": emulator.endpoint, "AZURE_OPENAI_API_KEY": emulator.api_key}


def printed(script: str, *args: object, emulator: Emulator | None = None, warnings: str) -> list[str]:
    """Answer the lines that a script prints, with these warnings (as for `-W`); it has to end well and quietly."""
    done = subprocess.run(  # noqa: S603 - the script is ours
        [sys.executable, "-W", warnings, "-c", script, *map(str, args)],
        env={**os.environ, **account_of(emulator)},
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()
