"""One response told as server-sent events, spaced over the time that it takes."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from o3pro_bg.emulator._responses import ModelledResponse

_DELTAS = 4
_GLANCE = 0.05  # seconds between checks for a cancel while an event is awaited
_HAS_TEXT = ("completed", "incomplete")


async def follow(response: ModelledResponse, starting_after: int, cut: int | None) -> AsyncIterator[bytes]:
    """
    Yields each event after number `starting_after` when its time comes.

    The stream ends after the terminal event; after `cut` events; or silently, when the response is cancelled.
    """
    sent = 0
    for due, event in script(response):
        if event["sequence_number"] <= starting_after:
            continue
        if sent == cut or not await _reached(response, due):
            return
        yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        sent += 1
    if sent != cut:
        await _reached(response, response.ends)  # an outcome without an event: end silently, but not early


async def _reached(response: ModelledResponse, due: float) -> bool:
    while (now := time.monotonic()) < due:
        if response.cancelled_at is not None:
            return False
        await asyncio.sleep(min(due - now, _GLANCE))
    return response.cancelled_at is None or due <= response.cancelled_at


def script(response: ModelledResponse) -> list[tuple[float, dict[str, Any]]]:
    """Returns every event of a response that nobody cancels, with the time at which it is due."""
    knobs = response.knobs
    starts = response.born + knobs.queued_seconds
    told = [(response.born, _shown(response, "response.created", "queued"))]
    told.append((response.born, _shown(response, "response.queued", "queued")))
    if not knobs.skip_progress:
        told.append((starts, _shown(response, "response.in_progress", "in_progress")))
    if knobs.outcome in _HAS_TEXT:
        told += _deltas(response, starts, response.ends)
    if knobs.outcome in (*_HAS_TEXT, "failed"):
        told.append((response.ends, _shown(response, f"response.{knobs.outcome}", knobs.outcome)))
    return [(due, {**event, "sequence_number": number}) for number, (due, event) in enumerate(told)]


def _shown(response: ModelledResponse, kind: str, status: str) -> dict[str, Any]:
    return {"type": kind, "response": response.as_json(status)}


def _deltas(response: ModelledResponse, starts: float, ends: float) -> list[tuple[float, dict[str, Any]]]:
    text = response.text(response.knobs.outcome)
    size = max(1, -(-len(text) // _DELTAS))
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    place = {"item_id": response.message_id, "output_index": 1, "content_index": 0, "logprobs": []}
    return [
        (
            starts + (ends - starts) * (number + 1) / (len(pieces) + 1),
            {"type": "response.output_text.delta", "delta": piece, **place},
        )
        for number, piece in enumerate(pieces)
    ]
