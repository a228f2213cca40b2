"""What the tests of the wire share: a configuration, bodies as the service sends them, and a connected remote."""

from __future__ import annotations

import json
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from openai import DefaultAsyncHttpxClient

from o3pro_bg._records import JobRequest
from o3pro_bg.client import O3ProClient
from o3pro_bg.config import O3ProConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from o3pro_bg._responses import ResponsesRemote

HOST = "https://x.openai.azure.com"
URL = f"{HOST}/openai/v1/responses"
KEY = "sk-very-secret-key"
PROMPT = "the very secret prompt"
ID = "resp_1"
REQUEST = JobRequest(PROMPT, "high", "my-o3", {"instructions": PROMPT})
_TLS = ssl.create_default_context()  # made once: it takes longer than a test
CONFIG = O3ProConfig(endpoint=HOST, api_key=KEY, deployment="my-o3")


def body(status: Any = "queued", **more: Any) -> dict[str, Any]:
    """Answer a response as the service sends it."""
    return {"id": ID, "object": "response", "created_at": 1.7e9, "status": status, "output": [], **more}


def message(*texts: str) -> dict[str, Any]:
    """Answer an item of the output that holds these texts."""
    return {"type": "message", "content": [{"type": "output_text", "text": text} for text in texts]}


def error(code: Any = None, said: Any = None, **more: Any) -> dict[str, Any]:
    """Answer an error body as Azure sends it."""
    return {"error": {"code": code, "message": said, **more}}


def sent(request: httpx.Request) -> dict[str, Any]:
    """Answer the body of a request."""
    return dict(json.loads(request.content))


@asynccontextmanager
async def connected(client: O3ProClient | None = None, **changes: Any) -> AsyncIterator[ResponsesRemote]:
    """Give a remote of this client, or of one whose configuration has these changes."""
    if client is None:
        config = O3ProConfig(**{"endpoint": HOST, "api_key": KEY, "deployment": "my-o3", **changes})
        client = O3ProClient(config, http_client=lambda: DefaultAsyncHttpxClient(verify=_TLS))
    remote = await client.connect()
    try:
        yield remote
    finally:
        await remote.aclose()
