"""How times, money and texts are shown, on a terminal and on a page."""

from __future__ import annotations

import unicodedata


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


def money(dollars: float) -> str:
    """Answer an estimate in US dollars."""
    return f"${dollars:.2f}" if dollars >= 0.1 else f"${dollars:.4f}"


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
