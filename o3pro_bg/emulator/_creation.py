"""A create request, understood or refused."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from o3pro_bg.emulator import _errors
from o3pro_bg.emulator._knobs import KnobError, parse_job

JOB_ID = "o3pro_bg_job_id"
KNOBS = "emulator"
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_ECHOED = ("instructions", "previous_response_id", "user")


@dataclass(frozen=True, slots=True)
class Creation:
    """Holds what one create asks for, once it is known to be valid."""

    deployment: str
    prompt: str
    effort: str
    background: bool
    store: bool
    max_output_tokens: int | None
    metadata: dict[str, str]
    echoed: dict[str, Any]
    reasoning: dict[str, Any]
    settings: dict[str, Any]
    """The knobs of this job's own, by name."""

    @property
    def input_tokens(self) -> int:
        """Is a plausible count of the prompt's tokens."""
        return 7 + (len(self.prompt) + 3) // 4

    @property
    def key(self) -> str:
        """Names the job over several creates: its id in the metadata, else a hash of prompt and metadata."""
        if JOB_ID in self.metadata:
            return "id:" + self.metadata[JOB_ID]
        whole = json.dumps([self.prompt, self.metadata], sort_keys=True)
        return "hash:" + hashlib.sha256(whole.encode()).hexdigest()


def understand(raw: bytes) -> Creation:
    """
    Reads the body of a create.

    Raises:
        Refusal: A 400 with a sentence, as the service refuses such a body.
    """
    try:
        body = json.loads(raw, parse_constant=_no_constant)
        prompt = "\n".join(_texts(body.get("input"))) if isinstance(body, dict) else ""
    except (ValueError, RecursionError):
        raise _errors.invalid("We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise _errors.invalid("The body of the request must be a JSON object.")
    _check_flags(body)
    metadata = _metadata(body.get("metadata"))
    reasoning = _reasoning(body.get("reasoning"))
    return Creation(
        deployment=_deployment(body.get("model")),
        prompt=_not_empty(prompt),
        effort=reasoning["effort"],
        background=body.get("background") is True,
        store=body.get("store") is not False,
        max_output_tokens=_max_output_tokens(body.get("max_output_tokens")),
        metadata=metadata,
        echoed={name: body.get(name) for name in _ECHOED},
        reasoning=reasoning,
        settings=_settings(metadata.get(KNOBS, ""), prompt),
    )


def _no_constant(name: str) -> object:
    raise ValueError(name)  # NaN and Infinity, which Python reads and JSON does not have


def _texts(value: object) -> Iterator[str]:
    """Yields every text of an input: a string, or messages whose content is a string or parts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        yield from _texts(value.get("content", value.get("text")))


def _check_flags(body: dict[str, Any]) -> None:
    for name in ("background", "store", "stream"):
        if body.get(name) not in (None, True, False):
            raise _errors.invalid(f"Invalid type for '{name}': expected a boolean.", name, "invalid_type")
    if body.get("stream"):
        raise _errors.invalid(
            "Unsupported value: 'stream' is not supported with this model.", "stream", "unsupported_value"
        )
    if body.get("background") and body.get("store") is False:
        raise _errors.invalid("Background mode requires 'store' to be true.", "store", "invalid_value")


def _deployment(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _errors.invalid("Missing required parameter: 'model'.", "model", "missing_required_parameter")
    return value


def _not_empty(prompt: str) -> str:
    if not prompt:
        raise _errors.invalid("Missing required parameter: 'input'.", "input", "missing_required_parameter")
    return prompt


def _max_output_tokens(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 16:
        message = "Invalid 'max_output_tokens': expected an integer of 16 or more."
        raise _errors.invalid(message, "max_output_tokens", "integer_below_min_value")
    return value


def _reasoning(value: object) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise _errors.invalid("Invalid type for 'reasoning': expected an object.", "reasoning", "invalid_type")
    reasoning = {"summary": None, **(value or {})}
    reasoning["effort"] = reasoning.get("effort") or "medium"
    if reasoning["effort"] not in EFFORTS:
        message = f"Invalid value for 'reasoning.effort'. Supported values are: {', '.join(EFFORTS)}."
        raise _errors.invalid(message, "reasoning.effort", "invalid_value")
    return reasoning


def _metadata(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _errors.invalid("Invalid 'metadata': expected an object of strings.", "metadata", "invalid_type")
    if len(value) > 16:
        raise _errors.invalid("Invalid 'metadata': at most 16 pairs.", "metadata", "object_above_max_properties")
    if any(len(name) > 64 for name in value):
        raise _errors.invalid("Invalid 'metadata': a key is longer than 64.", "metadata", "string_above_max_length")
    if any(len(text) > 512 for text in value.values()):
        raise _errors.invalid("Invalid 'metadata': a value is longer than 512.", "metadata", "string_above_max_length")
    return value


def _settings(metadata_knobs: str, prompt: str) -> dict[str, Any]:
    try:
        return parse_job(metadata_knobs, prompt)
    except KnobError as error:
        raise _errors.invalid(f"The emulator's knobs: {error}.", "metadata", "invalid_knob") from None
