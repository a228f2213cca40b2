"""What all jobs of one engine share: the way to the service, its bounds, and the knowledge of the jobs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from o3pro_bg._in_flight import InFlight
from o3pro_bg._pacing import Pace, RateBudget

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from o3pro_bg._ledger import Ledger
    from o3pro_bg._prices import Price
    from o3pro_bg._remote import Remote


@dataclass(slots=True)
class Shared:
    """
    What all jobs of an engine share.

    Attributes:
        connect: Answers the remote of the running loop; asked once, by the first job.
        ledger: What is known of the jobs.
        pace: When to look.
        max_concurrency: The most jobs under way at the service at once, or None.
        max_in_flight: The most requests under way at once.
        resubmit_uncertain: Whether a create that may have been accepted is sent again.
        lost_after: Seconds for which the service has to deny a response before it counts as lost, and for which a
            former process is listened to that may tell the id of one.
        cancel_on_close: Whether a job is cancelled when the engine closes.
        is_durable: Whether another process can take jobs up.
        delete_remote: Whether a job that the ledger forgets is also deleted at the service.
        prices: What costs are estimated with, before the built-in table.
        slots: Bounds the jobs under way at the service, or None.
        in_flight: Bounds the requests under way.
        closing: Whether the engine is being closed.
    """

    connect: Callable[[], Awaitable[Remote]]
    ledger: Ledger
    pace: Pace = field(default_factory=lambda: Pace())
    max_concurrency: int | None = None
    max_in_flight: int = 64
    resubmit_uncertain: bool = False
    lost_after: float = 30.0
    cancel_on_close: bool = True
    is_durable: bool = False
    delete_remote: bool = False
    prices: Mapping[str, Price] = field(default_factory=dict)
    slots: asyncio.Semaphore | None = field(init=False)
    in_flight: InFlight = field(init=False)
    budget: RateBudget = field(default_factory=RateBudget)
    connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    remote: Remote | None = None
    closing: bool = False

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.max_concurrency) if self.max_concurrency else None
        self.in_flight = InFlight(self.max_in_flight)

    @property
    def leaves_unsent(self) -> bool:
        """Tell whether what was not sent by now is left to the next process."""
        return self.closing and self.is_durable and not self.cancel_on_close

    async def connected(self) -> Remote:
        """Answer the remote, connected at the first call."""
        async with self.connecting:
            if self.remote is None:
                self.remote = await self.connect()
            return self.remote
