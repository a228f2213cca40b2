"""What every test gets: no way out of this machine, and warnings as errors."""

from __future__ import annotations

import ipaddress
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .postgres import Postgres

pytest_plugins = ["o3pro_bg.testing"]


def _is_local(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    try:
        return bool(ipaddress.ip_address(address[0]).is_loopback)
    except ValueError:
        return bool(address[0] == "localhost")


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c() -> None:
    """Ctrl-C reaches us and our scripts, though a shell starts what runs in its background with it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_way_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that reaches for another machine fails, whoever swallows the exception on the way."""
    reached: list[Any] = []
    resolve, connect, connect_ex = socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex

    def guard(address: Any) -> None:
        if not _is_local(address):
            reached.append(address)
            raise OSError(f"a test reached for {address!r}: only this machine is allowed")

    def guarded_resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host is not None:
            guard((host.decode() if isinstance(host, bytes) else host, port))
        return resolve(host, port, *args, **kwargs)

    def guarded_connect(self: socket.socket, address: Any) -> None:
        guard(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        guard(address)
        return connect_ex(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", guarded_resolve)
    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    yield
    assert not reached, f"the test reached for {reached}"


@pytest.fixture(autouse=True)
def _no_azure_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own account never leaks into a test."""
    for name in ("ENDPOINT", "API_KEY", "DEPLOYMENT", "DEPLOYMENT_NAME", "API_VERSION", "AD_TOKEN"):
        monkeypatch.delenv(f"AZURE_OPENAI_{name}", raising=False)
    monkeypatch.delenv("OPENAI_API_VERSION", raising=False)


@pytest.fixture(scope="session")
def service() -> Iterator[Emulator]:
    """One emulator for all tests that reset it, and that say how it behaves."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Start a PostgreSQL."""
    from .postgres import ABSENT, Postgres, programs

    if programs() is None:
        pytest.skip(ABSENT)
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Make a database of this kind, and answer its URL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()
