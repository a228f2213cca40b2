"""
A loop whose luck is seeded: it jumps through time, shuffles what is ready, and lets processes be killed or stopped.

asyncio runs what is ready in the order in which it became ready. The library may count on that as far as it causes the
order itself: what one callback makes ready keeps its order. What different callbacks make ready in the same turn is
merged at random, as are timers of the same moment: in life it depends on the network, the disk and other processes
which of them comes first. What has become ready in one turn never overtakes that of an earlier one.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import deque
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVarTuple

from o3pro_bg.testing import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from random import Random

Ts = TypeVarTuple("Ts")

PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)
"""Whose code runs; what a callback makes ready runs for the same process."""

_TWINS = 5e-7  # seconds within which timers of the same moment are drawn apart
_STALLS = (0.05, 1.0, 5.0)  # seconds by which the loop may be late


class Process:
    """
    What may be killed or stopped as a whole, at any moment between two callbacks.

    Attributes:
        tasks: What runs in it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.is_stopped = False
        self.tasks: list[asyncio.Task[Any]] = []
        self.held: list[asyncio.Handle] = []
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    @property
    def runs(self) -> bool:
        """Tell whether its code runs."""
        return self.is_alive and not self.is_stopped

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run this in the process."""
        task = asyncio.get_running_loop().create_task(work, context=self.context.copy())
        self.tasks.append(task)
        return task

    def kill(self) -> None:
        """Nothing of it runs any more."""
        self.is_alive = False

    def stop(self) -> None:
        """Nothing of it runs for now."""
        self.is_stopped = True

    def go_on(self) -> None:
        """What became ready meanwhile is ready now."""
        self.is_stopped = False
        for handle in self.held:
            asyncio.get_running_loop()._ready.append(handle)  # type: ignore[attr-defined]
        self.held.clear()

    def bury(self) -> None:
        """Close what was killed, so that nothing complains of it later."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what was about to be awaited
            for task in self.tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    try:
                        task.get_coro().close()
                    except BaseException:  # noqa: S112 - the dead do not complain
                        continue


class _Ready:
    """What is ready to run, in place of the loop's deque: in an order by luck."""

    def __init__(self, loop: SeededLoop, luck: Random | None, count: Callable[[], None]) -> None:
        self._luck = luck
        self._count_step = count
        self._turn: deque[asyncio.Handle] = deque()
        self._groups: list[list[asyncio.Handle]] = [[]]
        self._count = 0
        self._nothing = asyncio.Handle(len, (), loop, Context())
        self._nothing.cancel()

    def __len__(self) -> int:
        return self._count

    def append(self, handle: asyncio.Handle) -> None:
        self._groups[-1].append(handle)
        self._count += 1

    def popleft(self) -> asyncio.Handle:
        self._count_step()
        if not self._turn:
            self._turn.extend(self._merged())
        if self._groups[-1]:
            self._groups.append([])  # of what this one makes ready
        self._count -= 1
        handle = self._turn.popleft()
        process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
        if process is None or process.runs:
            return handle
        if process.is_alive:
            process.held.append(handle)
        return self._nothing

    def clear(self) -> None:
        self._turn.clear()
        self._groups, self._count = [[]], 0

    def _merged(self) -> list[asyncio.Handle]:
        """Answer what is ready: each group in its order, all of them interleaved at random."""
        groups, self._groups = self._groups, [[]]
        if self._luck is None or len(groups) == 1:
            return [handle for group in groups for handle in group]
        order = [number for number, group in enumerate(groups) for _ in group]
        self._luck.shuffle(order)
        heads = [iter(group) for group in groups]
        return [next(heads[number]) for number in order]


class SeededLoop(VirtualLoop):
    """
    A loop in virtual time, whose order and lateness are luck.

    Args:
        luck: Where that comes from.
        shuffles: Whether what is ready is shuffled.
        stalls: How likely the loop is late when it wakes up.
        patience: Callbacks after which it gives up.
    """

    def __init__(self, luck: Random, *, shuffles: bool = True, stalls: float = 0.0, patience: int = 400_000) -> None:
        super().__init__()
        self._luck = luck
        self._stalls = stalls
        self._left = patience
        self.watch: Callable[[], object] = lambda: None
        self._ready = _Ready(self, luck if shuffles else None, self._count_step)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call at this moment, before or after what else is to be called then."""
        return super().call_at(when + _TWINS * self._luck.random(), callback, *args, context=context)

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call soon: there are no threads here, and so nobody is to be woken up."""
        return self.call_soon(callback, *args, context=context)

    def jump(self, seconds: float) -> None:
        """Let so many seconds pass, or some more."""
        is_late = self._stalls and self._luck.random() < self._stalls
        super().jump(seconds + (self._luck.choice(_STALLS) if is_late else 0.0))

    def _count_step(self) -> None:
        self.watch()
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("it does not come to an end")
