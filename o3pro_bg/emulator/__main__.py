"""
The emulator's process: ``python -m o3pro_bg.emulator --port 0 --knobs "seconds=1"``.

Prints one line of JSON once it listens: ``emulator``, ``endpoint``, ``pid``, and ``api_key`` where it made
the key itself. Give it a key of your own in the environment as ``O3PRO_BG_EMULATOR_KEY``: an argument would
show in the list of processes. Where it cannot start, the line holds ``error`` instead, and the exit status
is 2.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from o3pro_bg.emulator._app import App, is_control
from o3pro_bg.emulator._knobs import KnobError, Knobs, parse
from o3pro_bg.emulator._server import Server, Traffic

KEY_VARIABLE = "O3PRO_BG_EMULATOR_KEY"


def say_json(line: dict[str, object]) -> None:
    """Says one line of JSON on standard output."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None, say: Callable[[dict[str, object]], object] = say_json) -> int:
    """Runs the emulator until it is told to stop, and returns its exit status; `say` tells where it listens."""
    options = _options(arguments)
    given = os.environ.pop(KEY_VARIABLE, "")
    key = given or os.urandom(24).hex()
    try:
        knobs = Knobs().overlay(parse(options.knobs))
        made = {} if given else {"api_key": key}
        asyncio.run(_run(options, knobs, key, lambda line: say({**line, **made})))
    except (KnobError, OSError) as error:
        say({"error": str(error)})
        return 2
    except KeyboardInterrupt:
        pass  # only where the loop cannot take signals (Windows)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m o3pro_bg.emulator", description="Emulates the service on loopback."
    )
    parser.add_argument("--host", default="127.0.0.1", choices=("127.0.0.1", "::1"))
    parser.add_argument("--port", default=0, type=int, help="0 takes a free one (default)")
    parser.add_argument("--knobs", default="", help="key=value words; the page at /emulator lists them")
    parser.add_argument("--with-parent", action="store_true", help="stop when standard input ends")
    return parser.parse_args(arguments)


async def _run(options: argparse.Namespace, knobs: Knobs, key: str, say: Callable[[dict[str, object]], object]) -> None:
    stop = asyncio.Event()
    _stop_on_signals(stop)
    if options.with_parent:
        _stop_with_parent(stop)
    _allow_many_sockets()
    traffic = Traffic()
    server = Server(App(knobs, key, traffic).answer, is_control, traffic)
    try:
        port = await server.listen(options.host, options.port)
        host = f"[{options.host}]" if ":" in options.host else options.host
        say({"emulator": "o3pro_bg", "endpoint": f"http://{host}:{port}", "pid": os.getpid()})
        await stop.wait()
    finally:
        server.close()


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows: terminate() ends the process anyway
            return


def _stop_with_parent(stop: asyncio.Event) -> None:
    """Sets `stop` when standard input ends: the parent holds its other end, however it dies."""
    loop = asyncio.get_running_loop()

    def watch() -> None:
        while os.read(0, 1024):  # not sys.stdin: its lock would be held at exit
            pass
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _allow_many_sockets() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS refuses what it calls infinite
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
