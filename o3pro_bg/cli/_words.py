"""How the command says things: statuses, times, tokens and money, in the characters that the terminal has."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final, TextIO

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
    "rate_limit": "the service asked it to wait (429)",
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


def duration(seconds: float) -> str:
    """Answer a time in two units: 4.2 s, 3 min 05 s, 2 h 10 min, 3 d 4 h."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def spent(usage: Usage | None, cost: float | None) -> str:
    """Answer what a job took: its tokens, and the estimate in US dollars; empty where nothing is known."""
    if usage is None:
        return ""
    thought = f" ({usage.reasoning_tokens:,} to reason)" if usage.reasoning_tokens else ""
    money = "" if cost is None else f", about ${cost:.2f}" if cost >= 0.1 else f", about ${cost:.4f}"
    return f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out{thought}{money}"


def one_line(text: str, width: int) -> str:
    """Answer the beginning of a text in so many columns; a wide character takes two, and what controls is left out."""
    line = "".join(sign if sign.isprintable() else " " for sign in text[: 4 * width + 4])
    if columns(line) <= width and len(text) <= 4 * width + 4:
        return line
    kept, used = "", 0
    for sign in line:
        used += columns(sign)
        if used > width - 1:
            break
        kept += sign
    return kept + "…"


def columns(text: str) -> int:
    """Answer how many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text
    )


def padded(text: str, width: int) -> str:
    """Answer the text with so many spaces behind it that it takes this many columns."""
    return text + " " * (width - columns(text))
