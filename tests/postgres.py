"""A PostgreSQL of the tests' own, from the programs that Debian installs; and databases in it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import psycopg

PASSWORD = "s3cret-and-nobody's"
ABSENT = "there is no PostgreSQL here: apt-get install postgresql"


def programs() -> Path | None:
    """Answer where PostgreSQL's programs are, or None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Postgres:
    """A server with a directory and a port of its own, which can be stopped and started; nothing of it is kept."""

    def __init__(self) -> None:
        self._programs = programs()
        self._root = Path(tempfile.mkdtemp(prefix="o3pro-pg-", dir="/tmp"))
        # The server refuses to be root.
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user is not None:
            shutil.chown(self._root, self._user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        (self._root / "pw").write_text(PASSWORD)
        self._run("initdb", "-D", self._data, "-A", "scram-sha-256", "-U", "o3pro", "--pwfile", str(self._root / "pw"))
        self.start()
        self._databases = 0

    @property
    def _data(self) -> str:
        return str(self._root / "data")

    def _run(self, program: str, *arguments: str) -> None:
        assert self._programs is not None
        with (self._root / "said").open("wb") as said:
            try:
                subprocess.run(  # noqa: S603 - programs of PostgreSQL
                    [self._programs / program, *arguments],
                    user=self._user,
                    cwd=self._root,
                    check=True,
                    stdout=said,
                    stderr=said,
                )
            except subprocess.CalledProcessError:
                raise AssertionError((self._root / "said").read_text()) from None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"-p {self.port} -k {self._root} -c fsync=off -c max_connections=300"
        self._run("pg_ctl", "-D", self._data, "-o", options, "-l", str(self._root / "log"), "-w", "start")

    def stop(self, how: str = "fast") -> None:
        """Stop the server: `fast` ends its connections, `immediate` is a crash."""
        self._run("pg_ctl", "-D", self._data, "-m", how, "-w", "stop")

    def database(self) -> str:
        """Make an empty database, and answer its URL."""
        self._databases += 1
        name = f"jobs_{self._databases}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql://o3pro:{PASSWORD.replace(chr(39), '%27')}@127.0.0.1:{self.port}/{name}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")
        shutil.rmtree(self._root)
