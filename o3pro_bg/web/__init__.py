"""
Jobs in a web server: an HTTP API, live events and a page, mounted into any ASGI application.

Two lines do it, here in FastAPI::

    app = FastAPI(lifespan=o3pro_bg.web.lifespan(client, store="jobs.db"))
    app.mount("/jobs", o3pro_bg.web.app())

Jobs run on the server's own event loop. With a `store` they outlive it: a deploy leaves them running at the service,
and the next process goes on with them; several workers with one store answer for each other's jobs.

    _lifespan   the handler of the server's loop, from its start to its end
    _leaving    hears that the server is about to end
    _desk       what the others ask of the handler
    _feed       what has changed, as a stream of events
    _guard      who may come in
    _api        the HTTP API
    _metrics    figures for Prometheus
    _openapi    its description
    _schemas    what it takes and answers
    _page       the page: its addresses, and what its forms do
    _asked      what of it is asked for
    _paint      how it looks: its frame, the form and the list
    _detail     a single job
    _chart      the jobs of the last hours
    _amounts    times
    _markup     how its HTML is put together, of page.html
    _phrases    everything that it says
    _mark       whether the emulator answers
    _asked, _paint, _detail, _chart, _markup, _amounts, _phrases
                what the page is made of, and what it says
    _wire       how bodies are read and answers written
    _words      the sentences of refusals
    _app        all of it as one application
"""

from __future__ import annotations

try:
    import starlette as _starlette  # noqa: F401 - what all of this stands on
except ImportError:
    raise ImportError("o3pro_bg.web needs the extra web: pip install 'o3pro-bg[web]'") from None

from o3pro_bg.web._app import app
from o3pro_bg.web._lifespan import handler, lifespan

__all__ = ["app", "handler", "lifespan"]
