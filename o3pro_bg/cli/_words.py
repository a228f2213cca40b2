"""How the command says things: statuses, reasons and tokens, in the characters that the terminal has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TextIO

from o3pro_bg._shown import money

if TYPE_CHECKING:
    from o3pro_bg._records import Usage

_GLYPHS: Final = {"started": "○", "running": "●", "completed": "✓", "failed": "✗", "cancelled": "⊘"} | {
    "ok": "✓",
    "warn": "!",
    "problem": "✗",
}
_PLAIN: Final = {"started": ".", "running": "*", "completed": "+", "failed": "!", "cancelled": "-"} | {
    "ok": "+",
    "warn": "!",
    "problem": "x",
}
COLOURS: Final = {"started": "cyan", "running": "blue", "completed": "green", "failed": "red", "cancelled": "yellow"}

_WAITS: Final = {
    "rate_limit": "the limits a minute hold it back: requests, tokens, or a 429",
    "connection": "no connection; it is tried again",
    "denied": "the service does not let us in: check the key, or `az login`; it is tried again",
    "refused": "the service says there is no such response; it is asked again",
    "concurrency": "it waits for its turn",
    "store": "its file cannot be written",
    "uncertain": "it may have been sent; another process may still tell",
    "endpoint": "it belongs to another endpoint",
}
"""Why a job makes no progress, by the word of `Job.waiting`."""


def why(waiting: str) -> str:
    """Answer why a job makes no progress, for the word of `Job.waiting`."""
    return _WAITS.get(waiting, waiting)


def glyph(status: str, stream: TextIO) -> str:
    """Answer the sign of a status, which always stands beside its word; a plain one where the stream has no other."""
    sign = _GLYPHS.get(status, "?")
    try:
        sign.encode(getattr(stream, "rich_proxied_file", stream).encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _PLAIN.get(status, "?")
    return sign


def spent(usage: Usage | None, cost: float | None) -> str:
    """Answer what a job took: its tokens, and the estimate in US dollars; empty where nothing is known."""
    if usage is None:
        return ""
    thought = f" ({usage.reasoning_tokens:,} to reason)" if usage.reasoning_tokens else ""
    estimate = "" if cost is None else f", about {money(cost)}"
    return f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out{thought}{estimate}"
