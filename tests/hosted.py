"""A server with the web parts in a process of its own: `python -m tests.hosted` runs it, `Hosted` starts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.scripts import account_of

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from starlette.applications import Starlette

    from o3pro_bg.emulator import Emulator

_STORE = "HOSTED_STORE"
_TOKEN = "HOSTED_TOKEN"
_PORT = "HOSTED_PORT"
_MOUNT = "/jobs"


class Hosted:
    """
    A server that can be killed, and started again at the same address.

    Args:
        emulator: The service.
        store: The file that holds its jobs.
        token: What it asks for, if anything.
    """

    def __init__(self, emulator: Emulator, store: Path, token: str = "") -> None:
        self._environment = {**os.environ, **account_of(emulator), _STORE: str(store), _TOKEN: token}
        self._port = "0"
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where its page is."""
        return f"http://localhost:{self._port}{_MOUNT}/"

    def start(self) -> Self:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(  # noqa: S603 - the script is ours
            [sys.executable, "-m", __name__],
            env={**self._environment, _PORT: self._port},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        said = ""
        for line in self._process.stderr:
            said += line
            if found := re.search(r"running on http://\S+:(\d+)", line):
                self._port = found[1]
                return self
        raise AssertionError(said)

    def kill(self) -> None:
        """End it at once, without a farewell."""
        assert self._process is not None
        assert self._process.stderr is not None
        self._process.kill()
        self._process.wait()
        self._process.stderr.close()


def make() -> Starlette:
    """Answer the application: the jobs of a file, below a path, as a deployment would have them."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from o3pro_bg import O3ProClient, O3ProConfig
    from o3pro_bg.web import app, lifespan

    return Starlette(
        lifespan=lifespan(O3ProClient(O3ProConfig()), store=os.environ[_STORE]),
        routes=[Mount(_MOUNT, app(auth=os.environ[_TOKEN] or None))],
    )


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(make(), port=int(os.environ[_PORT]), access_log=False)
