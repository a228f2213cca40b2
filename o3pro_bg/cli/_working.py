"""`worker`: live the jobs of a database, beside the workers of other machines."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from o3pro_bg.cli._exits import Exit, Stop
from o3pro_bg.cli._place import client_of, database_of, engine_of, language
from o3pro_bg.cli._screen import say

if TYPE_CHECKING:
    import argparse


def work(arguments: argparse.Namespace) -> Exit:
    """Live jobs until Ctrl-C or SIGTERM; then others have them at once."""
    from o3pro_bg.handler import BackgroundHandler

    if (database := database_of(arguments)) is None:
        raise Stop(Exit.CONFIGURATION, "a worker needs --database URL, or O3PRO_BG_DATABASE: jobs of a file need none")
    client = client_of(arguments)
    pace = arguments.requests_per_minute
    engine = engine_of(database, most_at_hand=arguments.at_hand, requests_per_minute=pace)
    with BackgroundHandler(client, engine=engine, language=language(), max_concurrency=arguments.concurrency):
        say(f"working for {engine.place}: Ctrl-C ends it, and others go on with its jobs")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            say("left: the jobs go on")
    return Exit.COMPLETED
