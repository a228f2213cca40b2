"""The handler of a server's event loop, from the server's start to its end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg.aio import AsyncBackgroundHandler
from o3pro_bg.web._desk import Desk
from o3pro_bg.web._leaving import Leaving
from o3pro_bg.web._words import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import Unpack

    from o3pro_bg._remote import Client
    from o3pro_bg._settings import Settings
    from o3pro_bg.job import AsyncJob

NAME: Final = "o3pro_bg"
"""What the handler is known by where nothing else is said."""
_GRACE: Final = 1.2  # seconds for the handler to close: servers are killed when they take long
_DESKS: Final[dict[tuple[asyncio.AbstractEventLoop, str], Desk]] = {}


def lifespan(
    client: Client,
    *,
    name: str = NAME,
    on_done: Callable[[AsyncJob], object] | None = None,
    **settings: Unpack[Settings],
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, AsyncBackgroundHandler]]]:
    """
    Answer a lifespan for an ASGI application: an `AsyncBackgroundHandler` that lives as long as the server.

    It is what Starlette, FastAPI and Litestar take as `lifespan`; elsewhere, and beside a lifespan of your own, enter
    `lifespan(client)(app)` with `async with`. It provides the handler, as `request.state.o3pro_bg` in Starlette and
    FastAPI, and `app()` finds it by the loop that both run on.

    When the server ends, the handler is closed within about 1.2 seconds: with a `store` its jobs are left running at
    the service, and the next process goes on with them.

    Args:
        client: An `O3ProClient`.
        name: What the handler is known by, where an application has several: give `app` the same.
        on_done: Called on the loop with the `AsyncJob` of every job that ends in this process's hands.
        **settings: Those of `AsyncBackgroundHandler`; see `Settings`.

    Raises:
        StoreError: As the server starts: the store cannot be opened.
        RuntimeError: As the server starts: its loop has a handler of this name already.
    """

    @asynccontextmanager
    async def jobs(_: Any) -> AsyncIterator[dict[str, AsyncBackgroundHandler]]:
        key = asyncio.get_running_loop(), name
        if key in _DESKS:
            raise RuntimeError(f"this event loop has a lifespan named {name!r} already: give one of them another name")
        handler = AsyncBackgroundHandler(client, on_done=on_done, **settings)
        leaving = Leaving()
        try:
            await handler.__aenter__()
            leaving.listen()
            _DESKS[key] = Desk(handler, leaving)
            yield {name: handler}
        finally:
            leaving.stop()
            _DESKS.pop(key, None)
            await handler.aclose(_GRACE)

    return jobs


def handler(name: str = NAME) -> AsyncBackgroundHandler:
    """
    Answer the handler that a `lifespan` of the running loop holds: in any framework, wherever you are in it.

    Args:
        name: That of the lifespan.

    Raises:
        LookupError: No lifespan of this name is open on this loop; or no loop runs here, as in an endpoint that is not
            an `async def`.
    """
    try:
        desk = desk_of(name)
    except RuntimeError:
        raise LookupError("no event loop runs in this thread: ask for the handler in an async def") from None
    if desk is None:
        raise LookupError(say("en", "no_lifespan", name=name))
    return desk.handler


def desk_of(name: str) -> Desk | None:
    """Answer the desk of the handler of this name on the running loop, or None where none lives there."""
    return _DESKS.get((asyncio.get_running_loop(), name))
