"""The command as people meet it: in pipes, and in a terminal whose screen can be read."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from o3pro_bg.emulator import Emulator

PATIENCE = 60.0  # seconds after which a command is taken to hang
COMMAND = (sys.executable, "-W", "error", "-m", "o3pro_bg")
CTRL_C = b"\x03"
_WINDOW = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "LINES")  # what is said of ours
_WHOLE_SCREEN = re.compile(rb"(\x1b\[\?1049[hl])")


class Account:
    """A home of the command, with an account at an emulator or without one."""

    def __init__(self, home: Path, emulator: Emulator | None = None) -> None:
        self.home = home
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in _WINDOW},
            "O3PRO_BG_HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "PYTHONUTF8": "0",
        }
        if emulator is not None:
            self.environment |= {
                "AZURE_OPENAI_ENDPOINT": emulator.endpoint,
                "AZURE_OPENAI_API_KEY": emulator.api_key,
            }

    def run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        without: tuple[str, ...] = (),
        **environment: str,
    ) -> subprocess.CompletedProcess[bytes]:
        """
        Run the command in pipes, to its end.

        Args:
            arguments: What stands behind `o3pro-bg`.
            stdin: What it reads.
            without: Modules that are not installed.
            environment: What is added to the environment.
        """
        command: tuple[str, ...] = COMMAND
        if without:
            hidden = f"import sys; sys.modules.update(dict.fromkeys({without!r}))"
            command = (
                sys.executable,
                "-W",
                "error",
                "-c",
                f"{hidden}; from o3pro_bg.cli import main; sys.exit(main())",
            )
        return subprocess.run(  # noqa: S603 - the command is ours
            [*command, *arguments],
            env={**self.environment, **environment},
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the command in pipes."""
        return subprocess.Popen(  # noqa: S603 - the command is ours
            [*COMMAND, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=_hears_hang_ups,
        )

    def says(self, *arguments: str, **more: Any) -> tuple[int, str, str]:
        """Run the command, and answer its exit code and what it wrote to standard output and error."""
        done = self.run(*arguments, **more)
        return done.returncode, done.stdout.decode(), done.stderr.decode()


class Terminal:
    """A command in a pseudo-terminal, and the screen that a person would see."""

    def __init__(
        self,
        account: Account,
        *arguments: str,
        size: tuple[int, int] = (100, 24),
        stdout: int | None = None,
        **environment: str,
    ) -> None:
        self.screen = pyte.Screen(*size)
        self.written = b""
        self._below = self.screen
        self._stream = pyte.ByteStream(self.screen)
        self._master, self._slave = pty.openpty()
        self._set_size(*size)
        self.process = subprocess.Popen(  # noqa: S603 - the command is ours
            [*COMMAND, *arguments],
            env={**account.environment, "TERM": "xterm-256color", **environment},
            stdin=self._slave,
            stdout=self._slave if stdout is None else stdout,
            stderr=self._slave,
            start_new_session=True,
            preexec_fn=_leads_terminal,
        )
        os.close(self._slave)

    def lines(self) -> list[str]:
        """Answer what stands on the screen, line by line, without the empty ones."""
        self._read(0)
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def text(self) -> str:
        """Answer what stands on the screen."""
        return "\n".join(self.lines())

    def until(self, shows: str | Callable[[str], bool]) -> str:
        """Wait until the screen shows a text, or what a function looks for, and answer all that stands there."""
        is_there = shows if callable(shows) else lambda text: shows in text
        deadline = time.monotonic() + PATIENCE
        while not is_there(text := self.text()):
            has_ended = not self._read(0.1)
            assert not has_ended or is_there(self.text()), f"the command has ended, and the screen shows:\n{text}"
            assert time.monotonic() < deadline, f"the screen still shows:\n{text}"
        return text

    def look(self, seconds: float) -> None:
        """Look at the screen until something is written, for so many seconds at the most."""
        self._read(seconds)

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def resize(self, columns: int, lines: int) -> None:
        """Have the window take another size."""
        self._read(0)
        for screen in {self.screen, self._below}:
            screen.resize(lines, columns)
        self._set_size(columns, lines)

    def hang_up(self) -> None:
        """Close the window."""
        os.close(self._master)
        self._master = -1

    def code(self) -> int:
        """Wait for the end of the command, and answer its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            self._read(0.05) if self._master >= 0 else time.sleep(0.05)
            assert time.monotonic() < deadline, f"the command hangs, and the screen shows:\n{self.text()}"
        self._read(0)
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._master >= 0:
            self.hang_up()

    def _show(self, part: bytes) -> None:
        """Have the screen show this; who asks for the whole of it gets another one, and gives it back in the end."""
        shown = self.screen
        if part == b"\x1b[?1049h":
            self._below = self.screen
            self.screen = pyte.Screen(self.screen.columns, self.screen.lines)
        elif part == b"\x1b[?1049l":
            self.screen = self._below
        else:
            self._stream.feed(part)
            return
        self._stream.detach(shown)
        self._stream.attach(self.screen)

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self, patience: float) -> bool:
        """Have the screen show what was written, now or within so many seconds; False where nothing more can come."""
        while self._master >= 0 and select.select([self._master], [], [], patience)[0]:
            data = b""
            with suppress(OSError):  # Linux says so where the other side is closed
                data = os.read(self._master, 65536)
            if not data:
                return False
            self.written += data
            for part in _WHOLE_SCREEN.split(data):
                self._show(part)
            patience = 0
        return True


def _hears_hang_ups() -> None:
    """Have a closed window be heard, though `nohup` starts what it runs, us included, with that ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _leads_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    _hears_hang_ups()


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def colours(written: bytes) -> Mapping[bytes, int]:
    """Answer how often each colour or style was switched on in what a command wrote."""
    return Counter(code for codes in re.findall(rb"\x1b\[([0-9;]*)m", written) for code in codes.split(b";") if code)
