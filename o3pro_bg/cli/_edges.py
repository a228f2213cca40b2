"""`demo`, `emulator` and `completion`: what needs no job of the user's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from o3pro_bg.cli._exits import Exit, Stop
from o3pro_bg.cli._screen import put

if TYPE_CHECKING:
    import argparse


def demo(arguments: argparse.Namespace) -> int:
    """Show the library at work against the emulator."""
    from o3pro_bg.demo import run

    return run(put, as_json=arguments.json)


def emulator(arguments: argparse.Namespace) -> int:
    """Run the emulator until Ctrl-C."""
    from o3pro_bg.emulator.__main__ import main as emulate

    return emulate([f"--port={arguments.port}", f"--knobs={arguments.knobs}"], say=_say_where)


def completion(arguments: argparse.Namespace) -> int:
    """Print what makes a shell complete the command."""
    try:
        import shtab
    except ImportError:
        raise Stop(Exit.CONFIGURATION, "completion needs the extra cli: pip install 'o3pro-bg[cli]'") from None
    from o3pro_bg.cli._parser import parser

    put(shtab.complete(parser(), shell=arguments.shell))
    return Exit.COMPLETED


def _say_where(line: dict[str, object]) -> None:
    if "error" in line:
        print(f"o3pro-bg emulator: {line['error']}", file=sys.stderr)
        return
    print(f"The emulator listens, and whatever it answers is made up. Its page: {line['endpoint']}/emulator\n")
    print(f"export AZURE_OPENAI_ENDPOINT={line['endpoint']}")
    print(f"export AZURE_OPENAI_API_KEY={line.get('api_key', '<the key given in O3PRO_BG_EMULATOR_KEY>')}", flush=True)
