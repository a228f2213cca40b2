"""What all jobs of one engine share: the way to the service, its bounds, and the knowledge of the jobs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from o3pro_bg._pacing import Pace, RateBudget

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from o3pro_bg._ledger import Ledger
    from o3pro_bg._remote import Remote


@dataclass(slots=True)
class Shared:
    """
    What all jobs of an engine share.

    Attributes:
        connect: Answers the remote of the running loop; asked once, by the first job.
        slots: Bounds the jobs under way at the service, or None.
        in_flight: Bounds the requests under way.
        resubmit_uncertain: Whether a create that may have been accepted is sent again.
        lost_after: Seconds for which the service has to deny a response before it counts as lost.
        cancel_on_close: Whether a job is cancelled at the service when the engine closes.
        closing: Whether the engine is being closed.
    """

    connect: Callable[[], Awaitable[Remote]]
    ledger: Ledger
    pace: Pace
    slots: asyncio.Semaphore | None
    in_flight: asyncio.Semaphore
    resubmit_uncertain: bool
    lost_after: float
    cancel_on_close: bool
    budget: RateBudget = field(default_factory=RateBudget)
    connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    remote: Remote | None = None
    closing: bool = False

    async def connected(self) -> Remote:
        """Answer the remote, connected at the first call."""
        async with self.connecting:
            if self.remote is None:
                self.remote = await self.connect()
            return self.remote
