"""
A process of its own with a handler over a shared database, as one of many hosts; a test tells it what to do.

Run as `python -m tests.host SETTINGS`, a JSON object: `endpoint`, `api_key`, `engine` (the arguments of `DbosEngine`),
`handler` (settings of the handler), `face`. It reads lines of JSON, a verb and its arguments, and prints what that
answers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from o3pro_bg import DbosEngine, O3ProClient, O3ProConfig, Pace

from .child import SOON, Child, answer
from .faces import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from o3pro_bg.emulator import Emulator


class Host(Child):
    """A process that has a handler of this database, over the emulator."""

    def __init__(
        self,
        emulator: Emulator,
        database: str,
        *,
        face: str = "sync",
        code: str = "",
        within: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        engine = {"poll": 0.2, "lease": 2.0, **settings.pop("engine", {})}
        told = {
            "endpoint": emulator.endpoint,
            "api_key": emulator.api_key,
            "database": database,
            "engine": engine,
            "handler": settings,
            "face": face,
            "code": code,
        }
        super().__init__("tests.host", json.dumps(told), within=tuple(within), options=("-W", "error"))

    def do(self, verb: str, *args: Any, **options: Any) -> Any:
        """Have something done, and answer what comes of it; an error is answered as a text."""
        self.send(verb, *args, **options)
        return self.receive()

    def send(self, verb: str, *args: Any, **options: Any) -> None:
        """Have something done, and do not wait."""
        self.tell(verb, args, options)

    def start(self, question: str = "q", **options: Any) -> str:
        """Start a job, and answer its id."""
        reply = self.do("start_background_task", question, **options)
        assert reply["success"], reply
        return str(reply["job_id"])

    def leave(self) -> None:
        """Have it close its handler, and do not wait."""
        if self.process.poll() is None and self.process.stdin is not None:
            self.go_on()
            self.process.stdin.close()

    def close(self) -> None:
        """Have it close its handler, and end."""
        self.leave()
        if self.process.poll() is None:
            try:
                self.process.wait(SOON)
            except subprocess.TimeoutExpired:
                self.kill()

    def __exit__(self, *told: object) -> None:
        self.close()
        super().__exit__(*told)


@contextmanager
def hosts(emulator: Emulator, database: str) -> Iterator[Callable[..., Host]]:
    """Start one more host with each call; in the end all of them close at once."""
    with ExitStack() as stack:
        started: list[Host] = []

        def start(**settings: Any) -> Host:
            started.append(stack.enter_context(Host(emulator, database, **settings)))
            return started[-1]

        yield start
        for host in started:
            host.leave()


def _answer(driver: Driver, verb: str, args: list[Any], options: dict[str, Any]) -> Any:
    if verb == "facts":  # of every job, what only its record tells
        return {
            record.job_id: {
                "status": record.status.value,
                "failure": record.failure and record.failure.code,
                "sent_at": record.sent_at,
                "ended_at": None if record.ended is None else record.created_at + record.ended - record.started,
                "response_id": record.response_id,
                "waiting": record.waiting,
            }
            for record in driver.handler._store.snapshot()
        }
    if verb == "held":
        store = driver.handler._store
        return [record.job_id for record in store.snapshot() if store.holds(record.job_id)]
    if verb == "submit":
        return driver.do("submit", *args, **options).id
    if verb == "result":
        job_id, *rest = args
        return driver.do("result", *rest, of=driver.handler.job(job_id), **options)
    if verb == "run":
        exec(args[0], names := {**globals()})  # what a test wants to know
        return names["answer"]
    return driver.do(verb, *args, **options)


def main(told: dict[str, Any]) -> None:
    """Answer until nothing more is asked."""
    exec(told["code"], globals())
    client = O3ProClient(O3ProConfig(endpoint=told["endpoint"], api_key=told["api_key"]))
    settings = {"pace": Pace(floor=0.05, ceiling=0.1), "language": "en", **told["handler"]}
    with Driver(told["face"], client, {"engine": DbosEngine(told["database"], **told["engine"]), **settings}) as driver:
        if told["face"] == "async":
            driver.do("list_active_jobs")
        answer("open")
        for line in sys.stdin:
            verb, args, options = json.loads(line)
            try:
                reply = _answer(driver, verb, args, options)
            except Exception as exc:
                reply = f"{type(exc).__name__}: {exc}"
            answer(reply)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
