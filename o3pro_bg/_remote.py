"""The service as the engine sees it: create, look, cancel, delete; answers are `News`, and trouble has a kind."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from o3pro_bg._budget import Limits
    from o3pro_bg._records import Failure, JobRequest, News
    from o3pro_bg.config import O3ProConfig


class Trouble(StrEnum):
    """What an exchange that brought no news means for the request that was made."""

    UNSENT = "unsent"  # provably never reached the service
    THROTTLED = "throttled"  # refused for now: 429
    REFUSED = "refused"  # refused for good: 3xx, 4xx
    DENIED = "denied"  # no credential, or one that is not let in: 401, 403
    MISSING = "missing"  # 404, 410
    UNCLEAR = "unclear"  # may have been carried out: time-out, reset, 408, 5xx, an unreadable answer


class RemoteTrouble(Exception):
    """An exchange with the service that brought no news; it never carries the request, the key or the prompt."""

    def __init__(
        self,
        kind: Trouble,
        failure: Failure,
        *,
        retry_after: float | None = None,
        request_id: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(f"{kind}: {failure.code} {failure.detail}".rstrip())
        self.kind = kind
        self.failure = failure
        self.retry_after = retry_after
        self.request_id = request_id
        self.limits = limits


class Remote(Protocol):
    """
    The service, for the engine of one event loop.

    Every method but `aclose` raises `RemoteTrouble` and nothing else.
    """

    background: bool
    """Whether a create is answered at once; without it, it is answered by the end of the job."""

    async def prepare(self) -> None:
        """Get ready what a request needs beside the service, such as a token; nothing is sent to the service."""

    async def create(self, job_id: str, request: JobRequest) -> News:
        """Send the question, exactly once."""

    async def look(self, response_id: str) -> News:
        """Ask how far the response is."""

    async def cancel(self, response_id: str) -> None:
        """Ask the service to stop; only a look tells whether it did."""

    async def delete(self, response_id: str) -> None:
        """Have the service delete the response; one that is gone already is no trouble."""

    async def aclose(self) -> None:
        """Close the connections."""


class Client(Protocol):
    """What a handler needs of its client; `O3ProClient` and `testing.FakeClient` are two."""

    @property
    def config(self) -> O3ProConfig:
        """The configuration."""

    def is_ready(self) -> bool:
        """Tell whether the configuration makes a working client."""

    async def connect(self) -> Remote:
        """Answer a remote of its own for the running event loop; whoever asked closes it."""


async def hanging_up(remote: Remote) -> AsyncGenerator[None, None]:
    """Close the remote, in a second at most, as this is closed: which a loop does as it ends, where nobody else has."""
    try:
        yield
    finally:
        with suppress(Exception), anyio.move_on_after(1):
            await remote.aclose()
