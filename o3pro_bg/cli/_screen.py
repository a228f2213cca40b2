"""What goes where: data to standard output, progress to standard error, and live only where somebody watches it."""

from __future__ import annotations

import errno
import json
import os
import sys
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from o3pro_bg.cli._exits import Exit, Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType


def put(text: str) -> None:
    """Write a line of data; what the stream's encoding lacks is written as an escape. Raises `Stop` where it cannot."""
    try:
        print(_fitting(text, sys.stdout.encoding), flush=True)
    except OSError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed at the end
        if exc.errno in (errno.EPIPE, errno.EIO):  # whoever read us, or the terminal, has gone
            raise BrokenPipeError from None
        raise Stop(Exit.FAILED, f"standard output cannot be written: {exc.strerror}") from None


def put_json(value: Any) -> None:
    """Write a value as one line of JSON, in ASCII, which every encoding has."""
    put(json.dumps(value))


def say(text: str) -> None:
    """Tell the person at the terminal something."""
    with suppress(OSError):  # a terminal that was closed
        print(_fitting(text, sys.stderr.encoding), file=sys.stderr, flush=True)


def is_live() -> bool:
    """Tell whether progress can be redrawn in place: a terminal that can, and the extra cli to do it."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and find_spec("rich") is not None


@contextmanager
def live(*, has_all: bool = False) -> Iterator[Callable[[RenderableType], None]]:
    """
    Answer what redraws in place on standard error; all of it is gone in the end.

    Args:
        has_all: Whether it has the whole terminal for the time: then nothing is left over where that is resized.
    """
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False, transient=not has_all, screen=has_all) as view:
        yield lambda what: view.update(what, refresh=True)


def _fitting(text: str, encoding: str | None) -> str:
    return text.encode(encoding or "ascii", "backslashreplace").decode(encoding or "ascii")
