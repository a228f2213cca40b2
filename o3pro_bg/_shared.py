"""What all jobs of one engine share: the way to the service, its bounds, and the knowledge of the jobs."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from o3pro_bg._budget import RateBudget
from o3pro_bg._door import Door, Slots
from o3pro_bg._durations import Habits
from o3pro_bg._in_flight import InFlight
from o3pro_bg._line import Turn
from o3pro_bg._pacing import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from o3pro_bg._ledger import Ledger
    from o3pro_bg._link import Link
    from o3pro_bg._prices import Price
    from o3pro_bg._records import JobRecord

    MakeDoor = Callable[[str, RateBudget, Slots, Callable[[], float]], Door]

log = logging.getLogger("o3pro_bg")

_LATE: Final = 1.0  # seconds for which no loop should stand still
_TOLD_FOR: Final = 60.0  # seconds until it is told again


@dataclass(slots=True)
class Shared:
    """
    What all jobs of an engine share.

    Attributes:
        link: The way to the service.
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
        make_door: Makes the door of a deployment.
        slots: Bounds the jobs under way at the service.
        in_flight: Bounds the requests under way.
        doors: What creates go through, by deployment.
        numbers: Of the jobs that are lived here.
        habits: How long jobs take, as far as is known.
        closing: Whether the engine is being closed.
        told_at: When it was last told that the loop is blocked.
    """

    link: Link
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
    make_door: MakeDoor = Door
    slots: Slots = field(init=False)
    in_flight: InFlight = field(init=False)
    doors: dict[str, Door] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    habits: Habits = field(default_factory=Habits)
    closing: bool = False
    told_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.slots = Slots(self.max_concurrency)
        self.in_flight = InFlight(self.max_in_flight)

    @property
    def leaves_unsent(self) -> bool:
        """Tell whether what was not sent by now is left to the next process."""
        return self.closing and self.is_durable and not self.cancel_on_close

    def turn_of(self, record: JobRecord) -> Turn:
        """Answer the job's place among those that wait to be sent."""
        return Turn(-record.request.priority, record.started, next(self.numbers))

    def door_of(self, deployment: str) -> Door:
        """Answer the door through which the creates of this deployment go."""
        if (door := self.doors.get(deployment)) is None:
            budget = RateBudget(self.max_in_flight)
            door = self.doors[deployment] = self.make_door(deployment, budget, self.slots, self.ledger.clock)
        return door

    def mind(self, late: float) -> None:
        """Tell, once a minute at the most, that the loop was blocked, where a job wakes up as late as that."""
        now = self.ledger.clock()
        if late > _LATE and now > self.told_at + _TOLD_FOR:
            self.told_at = now
            log.warning(
                "a job was woken up %.1f seconds late: something blocks the event loop, or the machine has too much to "
                "do; asyncio's debug mode (PYTHONASYNCIODEBUG=1) names what takes long on a loop: it belongs elsewhere",
                late,
            )
