"""
The life of a job as two tables: what moves a job, and what the service's words mean.

A job begins `started` and ends in one of three terminal statuses, which stand in the table as rows without
a way out. An *event* is a past-tense fact about the job; `step` is the only function that turns a status
and an event into the next status, and nothing else in the package compares or assigns a status by hand.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class JobStatus(StrEnum):
    """The five public words of the specification."""

    STARTED = "started"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Tell whether no event leads out of this status."""
        return not TRANSITIONS[self]


class Event(StrEnum):
    """A past-tense fact that moves a job."""

    ACCEPTED = "accepted"
    PROGRESSED = "progressed"
    ANSWERED = "answered"
    ERRORED = "errored"
    CANCELLED = "cancelled"
    LOST = "lost"


class IllegalTransition(AssertionError):
    """An event that cannot be in this status: a bug of this library, never a user's fault."""


_NOT_YET_RUNNING: Final[Mapping[Event, JobStatus]] = MappingProxyType(
    {
        Event.ACCEPTED: JobStatus.STARTED,
        Event.PROGRESSED: JobStatus.RUNNING,
        Event.ANSWERED: JobStatus.COMPLETED,
        Event.ERRORED: JobStatus.FAILED,
        Event.CANCELLED: JobStatus.CANCELLED,
        Event.LOST: JobStatus.FAILED,
    }
)
_DEAD_END: Final[Mapping[Event, JobStatus]] = MappingProxyType({})

TRANSITIONS: Final[Mapping[JobStatus, Mapping[Event, JobStatus]]] = MappingProxyType(
    {
        JobStatus.STARTED: _NOT_YET_RUNNING,
        # A service whose word goes back to `queued` does not make a running job start again.
        JobStatus.RUNNING: MappingProxyType({**_NOT_YET_RUNNING, Event.ACCEPTED: JobStatus.RUNNING}),
        JobStatus.COMPLETED: _DEAD_END,
        JobStatus.FAILED: _DEAD_END,
        JobStatus.CANCELLED: _DEAD_END,
    }
)

SERVICE_WORDS: Final[Mapping[str, Event]] = MappingProxyType(
    {
        "queued": Event.ACCEPTED,
        "in_progress": Event.PROGRESSED,
        "completed": Event.ANSWERED,
        "failed": Event.ERRORED,
        "incomplete": Event.ERRORED,
        "cancelled": Event.CANCELLED,
    }
)
"""What each word of the Responses API's `status` says. A word that is not here moves nothing."""


def step(status: JobStatus, event: Event) -> JobStatus:
    """
    Answer the status that follows.

    Raises:
        IllegalTransition: No such move is in the table; nothing has changed.
    """
    try:
        return TRANSITIONS[status][event]
    except KeyError:
        raise IllegalTransition(f"a job that is {status} cannot be {event}") from None
