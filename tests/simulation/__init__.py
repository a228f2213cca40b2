"""
A deterministic simulation: the real engine, handlers and stores in a world of which a seed decides everything.

The loop's order, the network's faults, the service's moods, the disk, the clocks, what users do, and when processes are
killed: all of it is luck, and the same for the same seed. What has to hold is judged at every step.

    python -m tests.simulation --seed 123 --trace     # what happened in one world
    python -m tests.simulation --seeds 1000           # whether any of these fails
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from .disk import Clerk
from .judge import Violation
from .loop import PROCESS, SeededLoop
from .world import Plan, World

__all__ = ["Report", "Violation", "simulate"]

_EPOCH = 1_800_000_000.0  # Unix time as a world begins
_COLLECTED = 20  # worlds after which what is left of them is collected
_SCRATCH = Path("/dev/shm")  # noqa: S108 - where a disk sync costs nothing


@dataclass
class Report:
    """
    What came of a seed.

    Attributes:
        failure: What was broken, or an empty string.
        verdicts: What befell each job, and its outcome.
    """

    seed: int
    store: str = ""
    failure: str = ""
    verdicts: list[tuple[set[str], str]] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    virtual_seconds: float = 0.0

    def __str__(self) -> str:
        replay = f"python -m tests.simulation --seed {self.seed} --trace --store {self.store}"
        return f"seed {self.seed}: {self.failure or 'ok'}\n  replay: {replay}"


class _Bugs(logging.Handler):
    """Takes what the library logs as errors: those that it calls bugs are some."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if "a bug of" in record.getMessage() or "raised" in record.getMessage():
            self._world.judge.violations.append(record.getMessage())


def simulate(seed: int, *, is_durable: bool | None = None) -> Report:
    """Run the world of this seed; `is_durable` says where its jobs are kept, instead of the seed."""
    luck = random.Random(seed)
    plan = Plan.of(luck, is_durable=is_durable)
    loop = SeededLoop(luck, shuffles=plan.shuffles, stalls=plan.stalls)
    scratch = tempfile.mkdtemp(dir=_SCRATCH if _SCRATCH.is_dir() else None) if plan.is_durable else ""
    world = World(plan, luck, loop, f"{scratch}/jobs.db")
    report = Report(seed, "disk" if plan.is_durable else "memory", trace=world.judge.trace)
    world.judge.note(plan, world.service.weather.rates, world.service.weather.traits)
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, scratch, ignore_errors=True)
        undo.callback(loop.close)
        undo.callback(world.disk.close)
        _enter(undo, world, loop)
        loop.watch = world.judge.raise_first
        try:
            report.verdicts = loop.run_until_complete(world.run())
        except (Violation, RuntimeError, AssertionError) as failure:
            report.failure = world.judge.violations[0] if world.judge.violations else f"{failure!r}"
        loop.watch = lambda: None
        loop.run_until_complete(_put_away(world))
    report.virtual_seconds = loop.time()
    if seed % _COLLECTED == 0:
        gc.collect()  # of itself it would come too rarely, and asyncio goes through all tasks that there ever were
    return report


async def _put_away(world: World) -> None:
    """Leave nothing that could complain as it is collected."""
    for program in world.programs:
        program.process.kill()
    for program in world.programs:
        program.process.bury()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.cancel()
    await asyncio.sleep(0)


def _enter(undo: ExitStack, world: World, loop: SeededLoop) -> None:
    """Give the library the world's clocks, luck, names and processes."""
    names = random.Random(f"names {world.plan}")
    state = random.getstate()
    undo.callback(random.setstate, state)
    random.seed(world.luck.random())
    log, bugs = logging.getLogger("o3pro_bg"), _Bugs(world)
    level, propagates = log.level, log.propagate
    log.setLevel(logging.ERROR)
    log.propagate = False
    log.addHandler(bugs)
    undo.callback(log.setLevel, level)
    undo.callback(setattr, log, "propagate", propagates)
    undo.callback(log.removeHandler, bugs)
    if gc.isenabled():  # when something is collected is no luck of ours
        gc.disable()
        undo.callback(gc.enable)

    def complained(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        world.judge.violations.append(f"the loop complains: {context.get('message')} {context.get('exception')!r}")

    loop.set_exception_handler(complained)

    def clerk(target: object, args: tuple[Any, ...], name: str, daemon: bool) -> Clerk:
        return Clerk(world.disk, args)

    def mark() -> str:
        process = PROCESS.get()
        return process.name if process else ""

    for target, value in {
        "time.time": lambda: _EPOCH + loop.time() + world.wall_shift,
        "time.monotonic": loop.time,
        "secrets.token_hex": lambda size: f"{names.getrandbits(8 * size):0{2 * size}x}",
        "o3pro_bg._sqlite.store.Thread": clerk,
        "o3pro_bg._sqlite.store.process_mark": mark,
        "o3pro_bg._sqlite.journal.is_gone": world.disk.is_gone,
    }.items():
        undo.enter_context(patch(target, value))
