"""What the HTTP API takes and answers, as JSON schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from o3pro_bg._admission import HIGHEST_PRIORITY, OURS
from o3pro_bg._states import JobStatus

if TYPE_CHECKING:
    from collections.abc import Collection

    from o3pro_bg.web._wire import Bounds

KEY: Final = "[ -~]{1,512}"
"""What a dedupe key is, over HTTP."""
TEXT: Final = {"type": "string"}
TRUE: Final = {"type": "boolean"}
STATUS: Final = {"type": "string", "enum": [status.value for status in JobStatus]}
EVENT: Final = {
    "type": "object",
    "properties": {
        "id": TEXT,
        "event": {"enum": ["job", "removed", "reset"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer"},
    },
}
_SECONDS: Final = {"type": "number", "minimum": 0}
_ERROR: Final = "what went wrong, and what to do"


def ref(name: str) -> dict[str, Any]:
    """Answer a reference to the schema of this name."""
    return {"$ref": f"#/components/schemas/{name}"}


def schemas(bounds: Bounds, efforts: Collection[str]) -> dict[str, Any]:
    """Answer each of them by its name."""
    yes, no = {"const": True}, {"const": False}
    refused: Any = {"success": no, "error": {"type": "string", "description": _ERROR}}
    asked: Any = {"question": TEXT, "effort": TEXT}
    listed: Any = {"job_id": TEXT, "status": STATUS, **asked, "elapsed_time": _SECONDS}
    count = {"type": "integer", "minimum": 0}
    tokens = _object("input output reasoning cached", input=count, output=count, reasoning=count, cached=count)
    return {
        "Question": _question(bounds, efforts),
        "Started": _object("success job_id status question effort", success=yes, job_id=TEXT, status=STATUS, **asked),
        "NotStarted": _object("success error", **refused, **asked),
        "Status": _object(
            "success status elapsed_time question effort",
            {"error": TEXT, "details": ref("Details")},
            success=yes,
            status=STATUS,
            elapsed_time=_SECONDS,
            **asked,
        ),
        "Result": _object(
            "success status total_time question effort",
            {"error": TEXT, "response": TEXT},
            success=TRUE,
            status=STATUS,
            total_time=_SECONDS,
            **asked,
        ),
        "NotFinished": _object("success error status", **refused, status=STATUS),
        "Changed": _object("success job_id status", asked, success=yes, job_id=TEXT, status=STATUS),
        "NotChanged": _object("success error job_id status", **refused, job_id=TEXT, status=STATUS),
        "JobList": _object(
            "jobs total last_event_id",
            jobs={"type": "array", "items": ref("Job")},
            total=count,
            last_event_id=TEXT,
        ),
        "Job": _object("job_id status question effort elapsed_time", {"details": ref("Details")}, **listed),
        "Details": _details(tokens),
        "Healthy": _object("success", success=yes),
        "Refusal": _object("success error", **refused),
    }


def _object(required: str, optional: Any = None, **fields: Any) -> dict[str, Any]:
    """Answer the schema of an object that holds these fields, and no others."""
    return {
        "type": "object",
        "properties": {**fields, **(optional or {})},
        "required": required.split(),
        "additionalProperties": False,
    }


def _question(bounds: Bounds, efforts: Collection[str]) -> dict[str, Any]:
    return _object(
        "question",
        question={"type": "string", "pattern": r"\S", "maxLength": bounds.question},
        effort={"enum": [*efforts], "default": "low", "description": "the reasoning effort"},
        timeout={
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "description": "seconds after which the job is cancelled, and fails",
        },
        dedupe_key={
            "type": ["string", "null"],
            "pattern": f"^{KEY}$",
            "description": "a name for it: where a job has it, no new one is started",
        },
        priority={
            "type": "integer",
            "minimum": -HIGHEST_PRIORITY,
            "maximum": HIGHEST_PRIORITY,
            "default": 0,
            "description": "jobs of a higher one are sent first",
        },
        options={
            "type": "object",
            "propertyNames": {"not": {"enum": [*OURS]}},
            "description": "any other argument of the Responses API",
        },
    )


def _details(tokens: dict[str, Any]) -> dict[str, Any]:
    maybe: dict[str, Any] = {"type": ["string", "null"]}
    some: dict[str, Any] = {"type": ["number", "null"]}
    return _object(
        "created_at waiting cancel_requested response_id request_id next_look tokens cost",
        created_at={"type": "number", "description": "seconds since 1970"},
        waiting={"type": "string", "description": "why it makes no progress, or nothing"},
        cancel_requested=TRUE,
        response_id=maybe,
        request_id=maybe,
        next_look={**some, "description": "seconds until the service is asked again"},
        tokens={"anyOf": [tokens, {"type": "null"}]},
        cost={**some, "description": "US dollars, an estimate"},
    )
