"""
The `o3pro-bg` command. What a verb needs is imported when it runs: help and lists are instant.

    _exits      what the exit codes mean
    _words      statuses, times and money, for people
    _screen     what goes to standard output, and what to standard error
    _place      where the jobs and the configuration are
    _jobs       which jobs there are, and which one a shortened id means
    _reading    status, result, list
    _watching   watch
    _asking     ask, submit
    _batch      batch
    _working    worker
    _changing   cancel, rm, prune, attach
    _serving    serve
    _doctor/    doctor
    _edges      demo, emulator, completion
    _pictures   what is redrawn in place (imports rich)
    _parser     all of it for argparse
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from types import FrameType


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or with the process's own, and answer its exit code."""
    try:
        with_streams()
        return _run(argv)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141  # whoever read us has gone: nothing is left to say


def _run(argv: Sequence[str] | None) -> int:
    from o3pro_bg.cli._exits import Exit, Stop
    from o3pro_bg.cli._parser import parser
    from o3pro_bg.cli._screen import put_json, say
    from o3pro_bg.errors import JobNotFound, StoreError

    arguments = parser().parse_args(argv)
    try:
        with_signals()
        _prepare(arguments)
        return int(_verb(arguments.run)(arguments))
    except Stop as stop:
        if stop.reply is not None and getattr(arguments, "json", False):
            put_json(stop.reply)
        say(f"o3pro-bg: {stop}")
        return stop.code
    except StoreError as trouble:
        say(f"o3pro-bg: {trouble}")
        return Exit.CONFIGURATION
    except JobNotFound as gone:
        say(f"o3pro-bg: {gone}")
        return Exit.NOT_FOUND


def with_streams() -> None:
    """Have standard streams that were closed read and write nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for as long as we run


def with_signals() -> None:
    """Have the end of the terminal or of the session close the handler, as an ordinary exit does."""
    for name in ("SIGTERM", "SIGHUP"):
        if (number := getattr(signal, name, None)) is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _leave)


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _prepare(arguments: argparse.Namespace) -> None:
    if (path := getattr(arguments, "env_file", None)) is not None:
        from o3pro_bg.cli._place import read_env_file

        read_env_file(path)
    if getattr(arguments, "verbose", False):
        import logging

        logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
        logging.getLogger("o3pro_bg").setLevel(logging.INFO)


def _verb(run: str) -> Callable[[argparse.Namespace], int]:
    module, _, function = run.partition(":")
    found: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(f"o3pro_bg.cli.{module}"), function)
    return found
