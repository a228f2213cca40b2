"""Waiting for several jobs at once, each answered when it ends."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from o3pro_bg._figures import is_figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from o3pro_bg._records import JobRecord

    WhenEnded = Callable[[str, Callable[[JobRecord | None], object]], Callable[[], object]]


def check_seconds(timeout: float | None) -> None:
    """Raise ValueError unless this is a time that can be waited for."""
    # NaN would stand at the head of the loop's timers and keep all others from firing.
    if timeout is not None and not is_figure(timeout) and timeout != math.inf:
        raise ValueError("timeout takes a number of seconds, 0 or more, or None")


class Ends:
    """
    The ends of several jobs, in the order in which they come: pairs of the id and the record.

    The record is the one in which the job ended, or in which `close` let it go; None where there is no such job.

    Args:
        when_ended: Calls back with the record in which a job ends, or with None where there is none.
        clock: Monotonic seconds.
        job_ids: The jobs.
        timeout: Seconds for all of them together, or None.

    Raises:
        TimeoutError: Not all have ended in time; they go on.
        ValueError: The time-out is no number of seconds.
    """

    def __init__(
        self, when_ended: WhenEnded, clock: Callable[[], float], job_ids: Iterable[str], timeout: float | None
    ) -> None:
        check_seconds(timeout)
        self._clock = clock
        self._deadline = None if timeout is None else clock() + timeout
        self._queue: asyncio.Queue[tuple[str, JobRecord | None]] = asyncio.Queue()
        ids = list(dict.fromkeys(job_ids))
        self._count = self._left = len(ids)
        self._take_back: list[Callable[[], object]] = []
        for job_id in ids:
            self._watch(when_ended, job_id)

    def _watch(self, when_ended: WhenEnded, job_id: str) -> None:
        self._take_back.append(when_ended(job_id, lambda record: self._queue.put_nowait((job_id, record))))

    async def aclose(self) -> None:
        """Watch no longer: what nobody waits for any more shall not be called back."""
        for take_back in self._take_back:
            take_back()
        self._take_back.clear()

    def __aiter__(self) -> Ends:
        return self

    async def __anext__(self) -> tuple[str, JobRecord | None]:
        if not self._left:
            raise StopAsyncIteration
        await asyncio.sleep(0)  # what has ended already is in the queue then, even for a time-out of 0
        try:
            async with asyncio.timeout(None if self._deadline is None else self._deadline - self._clock()):
                job_id, record = await self._queue.get()
        except TimeoutError:
            raise TimeoutError(f"{self._left} of {self._count} jobs have not ended in time; they go on") from None
        self._left -= 1
        return job_id, record
