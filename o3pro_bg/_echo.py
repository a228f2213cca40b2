"""What services and gateways repeat of a request: people read what they say, and a question is not for all of them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_WHOLE: Final = 12  # characters of a question that do not stand in an error by chance
_PART: Final = 24  # characters in a row, of whatever text, that do not
_STRIDE: Final = 4  # of the search: what is as long as a part and three is found
_SEARCHED: Final = 100_000  # characters of the question, and of the options: more would hold up the loop
_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"')  # in JSON


def without_texts(said: str, question: str, options: Mapping[str, Any]) -> str:
    """
    Answer this without what it repeats of the question, or of a long text among the options, and without what follows.

    That is a whole question of 12 characters or more, and any 27 characters in a row of the first 100,000, as they are
    or as JSON writes them.
    """
    written = _TEXT.findall(json.dumps(options)[:_SEARCHED])
    texts = [question[:_SEARCHED].strip(), *(json.loads(text) for text in written if len(text) > _PART)]
    forms = {*texts, *(" ".join(text.split()) for text in texts)}
    forms |= {*(json.dumps(text, ensure_ascii=plain)[1:-1] for text in texts for plain in (False, True))}
    places = [place for form in forms if (place := _echo(said, form)) is not None]
    return f"{said[: min(places)]}[the question]" if places else said


def _echo(said: str, text: str) -> int | None:
    """Answer where this begins to repeat the text, or None."""
    if len(text) >= _WHOLE and text in said:
        return said.index(text)
    for start in range(0, len(said) - _PART + 1, _STRIDE):
        if said[start : start + _PART] in text:
            end = start + _PART
            while start > 0 and said[start - 1 : end] in text:
                start -= 1
            return start
    return None
