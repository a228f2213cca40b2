"""
Applications of each framework, with a mount of jobs and something of their own, for servers to run.

Their store is the file that `O3PRO_BG_TEST_STORE` names, or memory; their account is the environment's.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import o3pro_bg.web
from o3pro_bg import AsyncBackgroundHandler, O3ProClient, O3ProConfig, Pace

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

OWN: dict[str, bool] = {}
"""Whether the host's own lifespan is under way."""


def jobs() -> Callable[[Any], AbstractAsyncContextManager[dict[str, AsyncBackgroundHandler]]]:
    """Answer the lifespan of the jobs."""
    store = os.environ.get("O3PRO_BG_TEST_STORE")
    settings: dict[str, Any] = {"pace": Pace(floor=0.05, ceiling=0.1), "language": "en"}
    return o3pro_bg.web.lifespan(O3ProClient(O3ProConfig()), store=store, **settings)


@asynccontextmanager
async def own(_: Any = None) -> AsyncIterator[None]:
    """Be a lifespan of the host's own, which is open as long as that of the jobs."""
    OWN["open"] = True
    yield
    OWN["open"] = False


def _told(handler: AsyncBackgroundHandler) -> dict[str, Any]:
    return {"pid": os.getpid(), "jobs": len(handler.jobs), "own": OWN.get("open", False)}


def starlette(*, is_open: bool = True) -> Any:
    """Answer an application of Starlette."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Mount, Route

    @asynccontextmanager
    async def both(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with own(app), jobs()(app) as state:
            yield {**state}

    async def told(request: Any) -> JSONResponse:
        return JSONResponse(_told(request.state.o3pro_bg))

    routes = [
        Route("/told", told),
        Mount("/jobs", o3pro_bg.web.app()),
        Mount("/elsewhere", o3pro_bg.web.app(name="elsewhere")),
    ]
    return Starlette(routes=routes, lifespan=both if is_open else None)


def fastapi(*, is_open: bool = True) -> Any:
    """Answer an application of FastAPI."""
    from fastapi import FastAPI, Request

    @asynccontextmanager
    async def both(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with own(app), jobs()(app) as state:
            yield {**state}

    app = FastAPI(lifespan=both if is_open else None)

    async def told(request: Any) -> dict[str, Any]:
        return _told(request.state.o3pro_bg)

    told.__annotations__["request"] = Request  # which is not known here by that name as FastAPI reads them
    app.get("/told")(told)
    app.mount("/jobs", o3pro_bg.web.app())
    app.mount("/elsewhere", o3pro_bg.web.app(name="elsewhere"))
    return app


def litestar(*, is_open: bool = True) -> Any:
    """Answer an application of Litestar."""
    from litestar import Litestar, asgi, get

    @get("/told")
    async def told() -> dict[str, Any]:
        return _told(o3pro_bg.web.handler())

    mounts = [
        asgi("/jobs", is_mount=True, copy_scope=True)(o3pro_bg.web.app()),
        asgi("/elsewhere", is_mount=True, copy_scope=True)(o3pro_bg.web.app(name="elsewhere")),
    ]
    return Litestar([told, *mounts], lifespan=[own, jobs()] if is_open else [])


def quart(*, is_open: bool = True) -> Any:
    """Answer an application of Quart."""
    from hypercorn.middleware import DispatcherMiddleware
    from quart import Quart

    app = Quart(__name__)

    async def both() -> AsyncGenerator[None, None]:
        async with own(), jobs()(app):
            yield

    @app.get("/told")
    async def told() -> dict[str, Any]:
        return _told(o3pro_bg.web.handler())

    if is_open:
        app.while_serving(both)
    mounts: dict[str, Any] = {"/jobs": o3pro_bg.web.app(), "/elsewhere": o3pro_bg.web.app(name="elsewhere")}
    app.asgi_app = DispatcherMiddleware({**mounts, "": app.asgi_app})  # type: ignore[method-assign]
    return app
