"""What may be asked: arguments become a `JobRequest`, or a refusal that says what to do instead."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg._figures import is_positive
from o3pro_bg._records import JobRequest
from o3pro_bg._sentences import say
from o3pro_bg.errors import ConfigError, HandlerClosed, InvalidRequest, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from o3pro_bg._sentences import Language
    from o3pro_bg.config import O3ProConfig
    from o3pro_bg.errors import O3ProError

# What would break a job, or contradict what the library sets itself.
OURS: Final = ("background", "store", "stream", "stream_options", "input", "model")
_METADATA_PAIRS: Final = 16
_LONGEST_KEY: Final = 512  # characters
_DEEPEST: Final = 600  # levels of options: they are written again where the stack is fuller
HIGHEST_PRIORITY: Final = 1_000_000


class Refused(Exception):
    """A request that is not taken on; it becomes a reply, or one of the public exceptions."""

    def __init__(self, key: str, **values: object) -> None:
        super().__init__(key)
        self.key = key
        self.values = values

    def sentence(self, language: Language) -> str:
        """Answer what is wrong and what to do."""
        values = {name: value(language) if callable(value) else value for name, value in self.values.items()}
        return say(language, self.key, **values)

    def as_error(self) -> O3ProError:
        """Answer the exception that `submit` raises for it."""
        kinds = {"closed": HandlerClosed, "not_ready": ConfigError, "store": StoreError}
        return kinds.get(self.key, InvalidRequest)(self.sentence("en"))


def admit(
    config: O3ProConfig,
    question: str,
    effort: str,
    timeout: float | None,
    options: Mapping[str, Any],
    *,
    dedupe_key: str | None = None,
    priority: int = 0,
) -> JobRequest:
    """
    Answer the request that these arguments make: all of it, so that a process of another configuration sends the same.

    Raises:
        TypeError: `question`, `effort` or `dedupe_key` is no text, or `priority` no whole number.
        Refused: The service, or the store, could not take it.
    """
    texts = {"question": question, "effort": effort, "dedupe_key": "" if dedupe_key is None else dedupe_key}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{name} has to be str, not {type(text).__name__}")
    if type(priority) is not int:
        raise TypeError(f"priority has to be int, not {type(priority).__name__}")
    if not question.strip():
        raise Refused("question_empty")
    if not _is_encodable(question):
        raise Refused("question_unencodable")
    if effort not in config.efforts:
        raise Refused("effort_unknown", effort=ascii(effort[:40]), efforts=", ".join(config.efforts))
    if timeout is not None and not is_positive(timeout):
        raise Refused("timeout_invalid")
    if dedupe_key is not None and not _is_key(dedupe_key):
        raise Refused("dedupe_key_invalid")
    if abs(priority) > HIGHEST_PRIORITY:
        raise Refused("priority_invalid", highest=HIGHEST_PRIORITY)
    whole = _checked(options, config)
    return JobRequest(question, effort, config.deployment, whole, timeout, config.resource, dedupe_key, priority)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_key(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_KEY and text.isprintable()  # lone surrogates are not


def _checked(options: Mapping[str, Any], config: O3ProConfig) -> dict[str, Any]:
    """Answer the options, the configuration's included, as plain JSON values, which nobody can change under the job."""
    for name in OURS:
        if name in options:
            raise Refused("option_refused", name=name)
    reasoning = options.get("reasoning", {})
    if not isinstance(reasoning, dict) or "effort" in reasoning:
        raise Refused("reasoning_invalid")
    _check_metadata(options.get("metadata", {}), room=_METADATA_PAIRS - config.tag_jobs)
    whole: Any = {**options, "reasoning": {**config.reasoning, **reasoning}} if config.reasoning else options
    if not whole:
        return {}
    try:
        plain = dict(json.loads(json.dumps(whole, ensure_ascii=False, allow_nan=False).encode()))
    except (TypeError, ValueError, RecursionError):
        raise Refused("option_unencodable") from None
    if _is_deep(plain):
        raise Refused("option_unencodable")
    return plain


def _is_deep(options: dict[str, Any]) -> bool:
    """Tell whether plain JSON values have more levels than are taken, whatever this Python could write."""
    level: list[Any] = [options]
    for _ in range(_DEEPEST):
        parts = [part for part in level if isinstance(part, dict | list)]
        level = [inner for part in parts for inner in (part.values() if isinstance(part, dict) else part)]
    return bool(level)


def _check_metadata(metadata: object, room: int) -> None:
    if not isinstance(metadata, dict) or len(metadata) > room:
        raise Refused("metadata_invalid", most=room)
    for key, value in metadata.items():
        if not (isinstance(key, str) and isinstance(value, str) and len(key) <= 64 and len(value) <= 512):
            raise Refused("metadata_invalid", most=room)
