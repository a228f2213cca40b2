"""How the page's HTML is put together: the parts of `page.html`, filled with phrases and with escaped values."""

from __future__ import annotations

import re
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Final

from o3pro_bg.web._phrases import PHRASES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from o3pro_bg._sentences import Language

_PART: Final = re.compile(r"^<!--: (\w+).*-->\n", re.MULTILINE)


class Html(str):
    """Text that is HTML by now; whatever else comes into a part is escaped."""

    __slots__ = ()


NOTHING: Final = Html()


def asset(name: str) -> bytes:
    """Answer a file that lies beside this module."""
    return (files("o3pro_bg.web") / name).read_bytes()


def fill(language: Language, part: str, **values: object) -> Html:
    """Answer a part of the page in this language; values stand before phrases of the same name."""
    escaped = {name: value if isinstance(value, Html) else escape(str(value)) for name, value in values.items()}
    return Html(_parts()[part].substitute({**_escaped_phrases(language), **escaped}))


def join(pieces: Iterable[Html]) -> Html:
    """Answer the pieces one after the other."""
    return Html("".join(pieces))


def phrase(language: Language, key: str, **values: object) -> str:
    """Answer what the page says, its blanks filled; not escaped yet."""
    return PHRASES[language][key].format(**values)


def written(page: Html) -> bytes:
    """Answer the bytes of a page; what no encoding has becomes a reference, which browsers show as U+FFFD."""
    return page.encode("utf-8", "xmlcharrefreplace")


@cache
def _parts() -> Mapping[str, Template]:
    _, *pieces = _PART.split(asset("page.html").decode())
    return {name: Template(text.strip("\n")) for name, text in zip(pieces[::2], pieces[1::2], strict=True)}


@cache
def _escaped_phrases(language: Language) -> Mapping[str, str]:
    return {key: escape(text) for key, text in PHRASES[language].items()}
