"""The `o3pro-bg` command. What a subcommand needs is imported when it runs: help and version are instant."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from o3pro_bg import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or with the process's own, and answer its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us has gone: nothing is left to say, not even at exit
        return 141


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="o3pro-bg", description="Background jobs for Azure OpenAI reasoning models.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"o3pro-bg {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="see the library at work against the emulator: a few seconds, no account, no cost",
        description="Run four jobs against the emulator on this machine: a 429 is honoured, one job is cancelled.",
    )
    demo.set_defaults(run=_demo)

    emulator = commands.add_parser(
        "emulator",
        help="run the emulator, a stand-in for the service on this machine, until Ctrl-C",
        description="Run the emulator on the loopback interface; the page at /emulator tells what it models.",
        epilog="example: o3pro-bg emulator --port 8080 --knobs 'seconds=5 latency=0.05'",
    )
    emulator.add_argument("--port", type=int, default=0, help="the port; default: a free one")
    emulator.add_argument("--knobs", default="", metavar="'KEY=VALUE …'", help="how it behaves; see /emulator")
    emulator.set_defaults(run=_emulator)
    return parser


def _demo(_: argparse.Namespace) -> int:
    from o3pro_bg.demo import run

    return run()


def _emulator(arguments: argparse.Namespace) -> int:
    from o3pro_bg.emulator.__main__ import main as emulate

    return emulate([f"--port={arguments.port}", f"--knobs={arguments.knobs}"], say=_say_where)


def _say_where(line: dict[str, object]) -> None:
    if "error" in line:
        print(f"o3pro-bg emulator: {line['error']}", file=sys.stderr)
        return
    print(f"The emulator listens, and whatever it answers is made up. Its page: {line['endpoint']}/emulator\n")
    print(f"export AZURE_OPENAI_ENDPOINT={line['endpoint']}")
    print(f"export AZURE_OPENAI_API_KEY={line.get('api_key', '<the key given in O3PRO_BG_EMULATOR_KEY>')}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
