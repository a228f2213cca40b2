"""A process that a test tells what to do, line by line, and that it stops and kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any, Self

SOON = 30


class Child:
    """A process of a module of ours, which answers each line of JSON with one; the first that it prints is `open`."""

    def __init__(self, *arguments: str, within: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - the module is one of these
            [*within, sys.executable, *options, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._is_open = False

    def opened(self) -> Self:
        """Wait until it is ready."""
        if not self._is_open:
            self._is_open = True
            assert (said := self.receive()) == "open", said
        return self

    def tell(self, *words: Any) -> None:
        """Send a line, and do not wait."""
        self.opened()
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        """Answer what came of what was sent."""
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            assert self.process.stderr is not None
            raise AssertionError(f"the process is gone: {self.process.stderr.read()}")
        return json.loads(line)

    def stop(self) -> None:
        """Have it stand still, as a machine that sleeps."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it wake up."""
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait(SOON)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def answer(reply: Any) -> None:
    """Print an answer, as such a process."""
    print(json.dumps(reply), flush=True)  # noqa: T201 - the pipe is how they talk
