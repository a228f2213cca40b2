"""Web servers in processes of their own, and whoever asks them over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urljoin, urlsplit

from .peers import until
from .scripts import account_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from o3pro_bg.emulator import Emulator

PATIENCE = 30.0  # seconds after which a server is taken to hang
_ROOT = Path(__file__).parent.parent
_COMPLAINTS = ("Traceback", "Exception", "Warning: ", "never retrieved", "was destroyed", "unclosed", "task(s)")
# The socket that is listened on: uvicorn's parent of several workers, and gunicorn's workers, leave it as they end.
_THEIRS = (
    r"sys:1: ResourceWarning: unclosed <socket.socket [^>]+ laddr=\('127.0.0.1', PORT\)>\n(ResourceWarning: .*\n)?"
)


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Client:
    """A connection that is kept, and so leads to one and the same worker."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def slowly(self, method: str, path: str) -> InFlight:
        """Make a request whose answer takes its time, with this connection to itself."""
        return InFlight(self._connection, method, path)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Make a request, whose body is a form where it is a text, and else JSON."""
        kind = "application/x-www-form-urlencoded" if isinstance(body, str) else "application/json"
        text = body if body is None or isinstance(body, str) else json.dumps(body)
        self._connection.request(method, path, text, {} if body is None else {"content-type": kind})
        response = self._connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, told, response.read().decode())

    def start(self, question: str) -> str:
        """Start a job, and answer its id."""
        answer = self.ask("POST", "/jobs/api/jobs", {"question": question})
        assert answer.status == 202, answer
        return str(answer.json["job_id"])

    def status(self, job_id: str) -> str:
        return str(self.ask("GET", f"/jobs/api/jobs/{job_id}").json.get("status"))

    def pid(self) -> int:
        """Answer which process answers here."""
        return int(self.ask("GET", "/told").json["pid"])

    def follow(self, path: str) -> tuple[str, Answer]:
        """Get what is there, or where one is sent from there; answer where that is, and what."""
        answer = self.ask("GET", path)
        if answer.status == 307:
            path = urlsplit(urljoin(f"http://x{path}", answer.headers["location"])).path
            answer = self.ask("GET", path)
        return path, answer

    def events(self, after: str = "") -> InFlight:
        """Open an event stream on this connection, which has no room for anything else from then on."""
        stream = InFlight(self._connection, "GET", f"/jobs/api/events?after={after}")
        until(lambda: stream.has("retry:"))
        return stream

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class InFlight:
    """A request that a thread makes, and whose answer is read as it comes; an answer that is cut off is a failure."""

    def __init__(self, connection: http.client.HTTPConnection, method: str, path: str) -> None:
        self.lines: list[str] = []
        self.status = 0
        self._failure: Exception | None = None
        self._connection = connection
        self._thread = threading.Thread(target=self._run, args=(method, path), daemon=True)
        self._thread.start()

    def _run(self, method: str, path: str) -> None:
        try:
            self._connection.request(method, path)
            with self._connection.getresponse() as response:
                self.status = response.status
                while line := response.readline():
                    self.lines.append(line.decode())
                if response.chunked:  # http.client takes the end of the connection for the end of a line
                    assert not response.read()
        except Exception as exc:
            self._failure = exc
        finally:
            self._connection.close()

    def has(self, text: str) -> bool:
        """Tell whether the answer holds this by now."""
        return text in "".join(self.lines)

    def ended(self) -> str:
        """Answer all of it, once it has ended as it should."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it does not end"
        if self._failure is not None:
            raise self._failure
        return "".join(self.lines)


class Server:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    def is_there(self, path: str = "/jobs/healthz") -> bool:
        """Tell whether it answers well, there."""
        assert self.process.poll() is None, self.said()
        try:
            with Client(self.port) as client:
                return client.ask("GET", path).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def client(self) -> Client:
        return Client(self.port)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        with self.client() as client:
            return client.ask(method, path, body)

    def said(self) -> str:
        """Answer what it has written."""
        return self._log.read_text(encoding="utf-8")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Answer with which code it ends, by itself and without complaints."""
        code = self.process.wait(PATIENCE)
        said = re.sub(_THEIRS.replace("PORT", str(self.port)), "", self.said())
        assert not [word for word in _COMPLAINTS if word in said], said
        return code


@contextmanager
def serving(
    command: Sequence[str], emulator: Emulator, directory: Path, *, ready: str = "/jobs/healthz", **environment: str
) -> Iterator[Server]:
    """Run `python -m` with this command, in which `PORT` is a free port, and answer the server that it is."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    log = directory / f"server-{port}.log"
    words = [word.replace("PORT", str(port)) for word in command]
    path = os.pathsep.join([str(_ROOT), str(directory)])
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-W", "always::ResourceWarning", "-m", *words],
            env={**os.environ, **account_of(emulator), "PYTHONPATH": path, "HOME": str(directory), **environment},
            cwd=directory,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        server = Server(process, port, log)
        try:
            until(lambda: server.is_there(ready))
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
