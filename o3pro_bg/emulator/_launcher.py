"""
Starts the emulator's process, and talks to it.

Nothing here needs an event loop or a signal, so it works from any thread, beside a loop that runs or none.
"""

import http.client
import json
import os
import secrets
import subprocess
import sys
import threading
from types import TracebackType
from typing import IO, Any, Self, cast
from urllib.parse import urlsplit

from o3pro_bg._children import import_path
from o3pro_bg.emulator._knobs import parse

_START = 10.0  # seconds the process has until it listens
_STOP = 3.0  # seconds it has to end by itself, before it is killed
_ASK = 10.0  # seconds a control request may take
_KEY_VARIABLE = "O3PRO_BG_EMULATOR_KEY"  # as in __main__, which the parent need not import


class Emulator:
    """
    Runs one emulator in a process of its own, which never outlives this one.

    Use it as a context manager, or call `start` and `stop`.

    Args:
        knobs: ``key=value`` words that hold for every request; the page at ``{endpoint}/emulator`` lists all.
        api_key: The key that the emulator accepts. A fresh one is made at every start unless it is given.
        host: The loopback address to listen on, ``127.0.0.1`` or ``::1``.

    Raises:
        ValueError: A knob is unknown or its value is not understood; the host is not loopback; the key cannot
            be sent in a header.
    """

    def __init__(self, knobs: str = "", *, api_key: str | None = None, host: str = "127.0.0.1") -> None:
        parse(knobs)
        if host not in ("127.0.0.1", "::1"):
            raise ValueError(f"the emulator listens on 127.0.0.1 or ::1 only, not on {host!r}")
        if api_key is not None and not (api_key and all("!" <= char <= "~" for char in api_key)):
            raise ValueError("api_key must be one or more printable ASCII characters without spaces")
        self._knobs = knobs
        self._given_key = api_key
        self._host = host
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._key = ""
        self._endpoint = ""

    @property
    def endpoint(self) -> str:
        """Is the address to give to a client, such as ``http://127.0.0.1:49152``."""
        self._running()
        return self._endpoint

    @property
    def api_key(self) -> str:
        """Is the key that the emulator accepts, as ``api-key`` and as a Bearer token."""
        self._running()
        return self._key

    @property
    def pid(self) -> int:
        """Is the id of the emulator's process."""
        return self._running().pid

    def start(self) -> Self:
        """
        Starts the process and waits until it listens; one that was started stays as it is.

        Raises:
            RuntimeError: The process ended, or did not listen within ten seconds.
        """
        with self._lock:
            if self._process is None:
                self._key = self._given_key or secrets.token_urlsafe(32)
                process = self._spawn()
                try:
                    self._endpoint = _first_line(process)
                except BaseException:
                    _end(process)
                    raise
                self._process = process
        return self

    def stop(self) -> None:
        """Ends the process within a few seconds; does nothing where none runs."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            _end(process)

    def counters(self) -> dict[str, Any]:
        """
        Returns what the emulator has counted; its own control requests are left out.

        Returns:
            ``creates`` (reached create), ``accepted`` (responses made), ``looks``, ``cancels``, ``deletes``,
            ``streams``, ``refused`` (answers of 400 and more), ``dropped`` (foreground jobs whose client
            left), ``connections`` (in total), ``open_connections``, ``max_in_flight``, ``late_completions``,
            ``responses`` (held now), and ``duplicates``: how many responses were made for one
            ``o3pro_bg_job_id``, only where more than one.
        """
        counters: dict[str, Any] = self._ask("GET", "counters")
        return counters

    def reset(self) -> None:
        """Zeroes the counters and forgets every response; the knobs stay."""
        self._ask("POST", "reset")

    def set_knobs(self, knobs: str) -> None:
        """
        Replaces the knobs that hold for every request; those not named go back to their defaults.

        Raises:
            ValueError: A knob is unknown or its value is not understood.
        """
        parse(knobs)
        self._ask("PUT", "knobs", knobs)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        process = self._process
        state = "stopped" if process is None else f"{self._endpoint} pid={process.pid}"
        return f"<{type(self).__name__} {state}>"

    def _running(self) -> subprocess.Popen[str]:
        if (process := self._process) is None:
            raise RuntimeError("the emulator is not started: use it in a with statement, or call start()")
        return process

    def _spawn(self) -> subprocess.Popen[str]:
        # -P keeps the working directory off the path: a json.py there would be imported.
        command = [sys.executable, "-P", "-m", "o3pro_bg.emulator", "--with-parent", f"--host={self._host}"]
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module, and no shell
            [*command, f"--knobs={self._knobs}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, **import_path(), _KEY_VARIABLE: self._key},
            start_new_session=True,  # Ctrl-C is for the parent, which may still want its jobs cancelled here
        )

    def _ask(self, method: str, what: str, body: str = "") -> Any:
        self._running()
        address = urlsplit(self._endpoint)
        # Not urllib.request: http.client knows no proxy, so none has to be disabled.
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=_ASK)
        try:
            connection.request(method, f"/emulator/{what}", body.encode(), {"api-key": self._key})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"the emulator answered {answer.status}: {text.decode(errors='replace')}")
        return json.loads(text)


def _first_line(process: subprocess.Popen[str]) -> str:
    """Returns the endpoint that the process names once it listens."""
    # A kill ends the read below: there is no portable way to read a pipe with a time-out.
    late = threading.Timer(_START, process.kill)
    late.daemon = True
    late.start()
    try:
        line = cast("IO[str]", process.stdout).readline()
    finally:
        late.cancel()
    if not line:
        raise RuntimeError(
            f"the emulator did not listen within {_START:g} s, or ended before: standard error may say why"
        )
    said: dict[str, str] = json.loads(line)
    if "error" in said:
        raise RuntimeError(f"the emulator cannot start: {said['error']}")
    return said["endpoint"]


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
