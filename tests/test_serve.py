"""`serve`: a page of the command's jobs, for this machine alone, or for whoever has the token."""

from __future__ import annotations

import re
import signal
import socket
import stat
from typing import TYPE_CHECKING

import httpx2
import pytest

from .terminal import Account, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from o3pro_bg.emulator import Emulator

    Start = Callable[..., "Serving"]

TOKEN = "a token of sixteen"
ANYWHERE = "0.0.0.0"  # noqa: S104 - that is the point


@pytest.fixture
def account(service: Emulator, tmp_path: Path) -> Account:
    """A home of the command, and an account at an emulator whose jobs take 0.2 seconds."""
    service.reset()
    service.set_knobs("seconds=0.2 queued=0")
    return Account(tmp_path / "home", service)


class Serving:
    """A `serve` that listens, and where."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.process = process
        self.said = process.stdout.readline().decode()
        self.place = re.findall(r"http://\S+/", self.said)[0]

    def ends(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """Send a signal, and answer the exit code and what was written to standard error."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        """Answer the exit code and what was written to standard error, once it has ended."""
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err.decode()


@pytest.fixture
def serve(account: Account) -> Iterator[Start]:
    """Start `serve` on a free port with these arguments, and answer it; what is left of it ends with the test."""
    started: list[Serving] = []

    def start(*arguments: str, **environment: str) -> Serving:
        account.environment |= environment
        started.append(Serving(account.start("serve", "--port", "0", *arguments)))
        return started[-1]

    yield start
    for serving in started:
        if serving.process.poll() is None:
            serving.process.kill()
            serving.process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_serve(account: Account, serve: Start, number: signal.Signals, code: int) -> None:
    """`serve` answers on loopback, says so, shares the command's jobs, and ends by Ctrl-C without a word."""
    serving = serve()
    assert "for this machine alone" in serving.said
    assert "http://127.0.0.1:" in serving.said
    with httpx2.Client(base_url=serving.place, trust_env=False) as http:
        job_id = http.post("api/jobs", json={"question": "Why?"}).json()["job_id"]
        assert account.says("result", job_id, "--wait")[0] == 0
        theirs = account.says("submit", "And?")[1].strip()
        wait_until(lambda: http.get(f"api/jobs/{theirs}").json().get("status") == "completed", "the end of the job")
    assert serving.ends(number) == (code, "")


def test_serve_ends_with_an_open_stream(serve: Start) -> None:
    """A stream of events that is open when Ctrl-C comes ends as a stream ends, and keeps nothing."""
    serving = serve()
    with (
        httpx2.Client(base_url=serving.place, trust_env=False, timeout=60) as http,
        http.stream("GET", "api/events") as events,
    ):
        lines = events.iter_lines()
        assert next(lines) == "retry: 1000"
        serving.process.send_signal(signal.SIGINT)
        assert not [line for line in lines if line]
    assert serving.ended() == (130, "")


def test_elsewhere_a_token_is_asked_for(account: Account, serve: Start) -> None:
    """On an address that others reach, a token is made that its owner alone can read, and no word of it is printed."""
    serving = serve("--host", ANYWHERE)
    path = account.home / "token"
    token = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "for whoever has the token" in serving.said
    port = serving.place.rpartition(":")[2]
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        assert http.get("api/jobs").status_code == 401
        assert http.get("api/jobs", headers={"authorization": f"Bearer {token}"}).status_code == 200
    code, err = serving.ends()
    assert code == 130
    assert str(path) in err
    assert token not in err + serving.said
    again = serve("--host", ANYWHERE)
    assert path.read_text() == token
    again.ends()


def test_a_token_of_ones_own(account: Account, serve: Start) -> None:
    """O3PRO_BG_TOKEN is the token, on loopback too, and then no file is made."""
    serving = serve(O3PRO_BG_TOKEN=TOKEN)
    with httpx2.Client(base_url=serving.place, trust_env=False) as http:
        assert http.get("api/jobs").status_code == 401
        assert http.get("api/jobs", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert serving.ends() == (130, "")
    assert not (account.home / "token").exists()


def test_a_token_that_could_be_guessed(account: Account) -> None:
    """A short token is refused before anything listens, wherever it comes from."""
    code, _, err = account.says("serve", O3PRO_BG_TOKEN="short")
    assert (code, "16 characters" in err) == (6, True)
    account.home.mkdir()
    (account.home / "token").write_text("short")
    code, _, err = account.says("serve", "--host", ANYWHERE, "--port", "0")
    assert (code, "remove it" in err) == (6, True)


def test_a_port_that_is_taken(account: Account) -> None:
    """A port or an address that cannot be had is said in one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, out, err = account.says("serve", "--port", port)
    assert (code, out, err.count("\n")) == (6, "", 1)
    assert f"port {port}" in err
    assert account.says("serve", "--host", "192.0.2.1")[0] == 6


def test_a_store_that_cannot_be_opened(account: Account, tmp_path: Path) -> None:
    """Where the file of the jobs is none, `serve` ends with why, and without a traceback."""
    (tmp_path / "no.db").write_bytes(b"this is no database" * 100)
    code, out, err = account.says("serve", "--port", "0", "--store", str(tmp_path / "no.db"))
    assert (code, out) == (6, "")
    assert "Traceback" not in err
    assert "no.db" in err


def test_without_the_extra(account: Account) -> None:
    """Without the extra `web`, `serve` says what to install."""
    code, _, err = account.says("serve", without=("uvicorn",))
    assert (code, "o3pro-bg[web]" in err) == (6, True)


def test_without_an_account(tmp_path: Path) -> None:
    """Without a configuration, `serve` says what is missing."""
    code, _, err = Account(tmp_path / "home").says("serve", "--port", "0")
    assert (code, "AZURE_OPENAI_ENDPOINT" in err) == (6, True)
