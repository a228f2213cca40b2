"""The description of the HTTP API, for clients and their generators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from o3pro_bg import __version__
from o3pro_bg._states import JobStatus

if TYPE_CHECKING:
    from o3pro_bg.web._wire import Bounds

_TEXT: Final = {"type": "string"}
_SECONDS: Final = {"type": "number", "minimum": 0}
_TRUE: Final = {"type": "boolean"}
_STATUS: Final = {"type": "string", "enum": [status.value for status in JobStatus]}
_ERROR: Final = "what went wrong, and what to do"


def document(bounds: Bounds) -> dict[str, Any]:
    """Answer the OpenAPI document of the API, which takes no more than these bounds."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "o3pro_bg",
            "version": __version__,
            "description": "Background jobs for Azure OpenAI reasoning models: start one, get its id, come back for "
            "the answer, cancel for real.",
        },
        "servers": [{"url": ".."}],
        "security": [{}, {"token": []}],
        "paths": {
            "/api/jobs": {"get": _listing(), "post": _starting()},
            "/api/jobs/{job_id}": {"parameters": [_JOB_ID], "get": _status(), "delete": _removing()},
            "/api/jobs/{job_id}/result": {"parameters": [_JOB_ID], "get": _result()},
            "/api/jobs/{job_id}/cancel": {"parameters": [_JOB_ID], "post": _cancelling()},
            "/api/events": {"get": _events()},
            "/healthz": {"get": _health()},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(bounds),
        },
    }


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(description: str, schema: str, **headers: str) -> dict[str, Any]:
    described = {name: {"description": text, "schema": _TEXT} for name, text in headers.items()}
    content = {"application/json": {"schema": _ref(schema)}}
    return {"description": description, "content": content, **({"headers": described} if headers else {})}


_REFUSED: Final = {
    "400": _answer("the request cannot be read, or the server is not asked by a name of its own", "Refusal"),
    "401": _answer("a token is needed", "Refusal"),
    "403": _answer("another machine, or another site, asks", "Refusal"),
    "503": _answer("jobs cannot be taken on, or known, here and now", "Refusal"),
}
_UNKNOWN: Final = {"404": _answer("there is no such job", "Refusal")}
_JOB_ID: Final = {
    "name": "job_id",
    "in": "path",
    "required": True,
    "description": "the id of a job",
    "schema": {"type": "string", "pattern": "^[^/]+$"},
}
_DETAILS: Final = {
    "name": "details",
    "in": "query",
    "description": "whether to tell times, tokens and costs as well",
    "schema": _TRUE,
}


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _listing() -> dict[str, Any]:
    return {
        "summary": "list jobs, the newest first",
        "operationId": "list_active_jobs",
        "parameters": [
            _query("status", "only those of this status", _STATUS),
            _query("q", "only those whose question holds this text, or whose id begins so", _TEXT),
            _query("limit", "how many at the most", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
            _query("offset", "how many to leave out", {"type": "integer", "minimum": 0, "maximum": 10**9}),
            _DETAILS,
        ],
        "responses": {
            "200": _answer("the jobs", "JobList"),
            "422": _answer("a parameter makes no sense", "Refusal"),
            **_REFUSED,
        },
    }


def _starting() -> dict[str, Any]:
    return {
        "summary": "start a job",
        "operationId": "start_background_task",
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("Question")}}},
        "responses": {
            "202": _answer("the job is under way", "Started", Location="where it is told how far it is"),
            "413": _answer("the body is too large", "Refusal"),
            "415": _answer("the body is no JSON", "Refusal"),
            "422": _answer("the job cannot be started so", "NotStarted"),
            "429": _answer("too many jobs are under way", "Refusal"),
            **_REFUSED,
            "503": _answer("jobs cannot be taken on here and now", "NotStarted"),
        },
    }


def _status() -> dict[str, Any]:
    return {
        "summary": "tell how far a job is",
        "operationId": "check_status",
        "parameters": [_DETAILS],
        "responses": {"200": _answer("how far it is", "Status"), **_UNKNOWN, **_REFUSED},
    }


def _result() -> dict[str, Any]:
    return {
        "summary": "tell what came of a job",
        "operationId": "get_result",
        "responses": {
            "200": _answer("its answer, or why there is none", "Result"),
            "409": _answer("it has not ended yet", "NotFinished"),
            **_UNKNOWN,
            **_REFUSED,
        },
    }


def _cancelling() -> dict[str, Any]:
    return {
        "summary": "cancel a job at the service; waits for that, up to 15 seconds",
        "operationId": "cancel_job",
        "responses": {
            "200": _answer("it is cancelled", "Changed"),
            "409": _answer("it is not, or it is not known yet", "NotChanged"),
            **_UNKNOWN,
            **_REFUSED,
        },
    }


def _removing() -> dict[str, Any]:
    return {
        "summary": "forget a job that has ended",
        "operationId": "remove_job",
        "responses": {
            "200": _answer("it is forgotten", "Changed"),
            "409": _answer("it has not ended, or cannot be forgotten now", "NotChanged"),
            **_UNKNOWN,
            **_REFUSED,
        },
    }


def _events() -> dict[str, Any]:
    return {
        "summary": "tell what changes, as it does",
        "description": "Server-sent events: `job` with a job as in the list, with its details; `removed` with its "
        "`job_id`; `reset` where events were missed: list the jobs anew. Ends after some minutes: come back with the "
        "id of the last event.",
        "operationId": "events",
        "parameters": [
            _query("after", "the id of an event, such as the list's last_event_id", _TEXT),
            {"name": "Last-Event-ID", "in": "header", "description": "the same", "schema": _TEXT},
        ],
        "responses": {
            "200": {"description": "the events", "content": {"text/event-stream": {"schema": _TEXT}}},
            **_REFUSED,
        },
    }


def _health() -> dict[str, Any]:
    return {
        "summary": "tell whether jobs are taken on; needs no token",
        "operationId": "health",
        "responses": {
            "200": _answer("they are", "Healthy"),
            "503": _answer("they are not", "Refusal"),
        },
    }


def _object(required: str, optional: Any = None, **fields: Any) -> dict[str, Any]:
    """Answer the schema of an object that holds these fields, and no others."""
    return {
        "type": "object",
        "properties": {**fields, **(optional or {})},
        "required": required.split(),
        "additionalProperties": False,
    }


def _schemas(bounds: Bounds) -> dict[str, Any]:
    yes, no = {"const": True}, {"const": False}
    refused: Any = {"success": no, "error": {"type": "string", "description": _ERROR}}
    asked: Any = {"question": _TEXT, "effort": _TEXT}
    listed: Any = {"job_id": _TEXT, "status": _STATUS, **asked, "elapsed_time": _SECONDS}
    count = {"type": "integer", "minimum": 0}
    tokens = _object("input output reasoning cached", input=count, output=count, reasoning=count, cached=count)
    return {
        "Question": _question(bounds),
        "Started": _object("success job_id status question effort", success=yes, job_id=_TEXT, status=_STATUS, **asked),
        "NotStarted": _object("success error", **refused, **asked),
        "Status": _object(
            "success status elapsed_time question effort",
            {"error": _TEXT, "details": _ref("Details")},
            success=yes,
            status=_STATUS,
            elapsed_time=_SECONDS,
            **asked,
        ),
        "Result": _object(
            "success status total_time question effort",
            {"error": _TEXT, "response": _TEXT},
            success=_TRUE,
            status=_STATUS,
            total_time=_SECONDS,
            **asked,
        ),
        "NotFinished": _object("success error status", **refused, status=_STATUS),
        "Changed": _object("success job_id status", asked, success=yes, job_id=_TEXT, status=_STATUS),
        "NotChanged": _object("success error job_id status", **refused, job_id=_TEXT, status=_STATUS),
        "JobList": _object(
            "jobs total last_event_id",
            jobs={"type": "array", "items": _ref("Job")},
            total=count,
            last_event_id=_TEXT,
        ),
        "Job": _object("job_id status question effort elapsed_time", {"details": _ref("Details")}, **listed),
        "Details": _details(tokens),
        "Healthy": _object("success", success=yes),
        "Refusal": _object("success error", **refused),
    }


def _question(bounds: Bounds) -> dict[str, Any]:
    return _object(
        "question",
        question={"type": "string", "minLength": 1, "maxLength": bounds.question},
        effort={"type": "string", "default": "low", "description": "the reasoning effort"},
        timeout={"type": ["number", "null"], "description": "seconds after which the job is cancelled, and fails"},
        dedupe_key={
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": 512,
            "description": "a name for it: where a job has it, no new one is started",
        },
        priority={"type": "integer", "default": 0, "description": "jobs of a higher one are sent first"},
        options={"type": "object", "description": "any other argument of the Responses API"},
    )


def _details(tokens: dict[str, Any]) -> dict[str, Any]:
    maybe: dict[str, Any] = {"type": ["string", "null"]}
    some: dict[str, Any] = {"type": ["number", "null"]}
    return _object(
        "created_at waiting cancel_requested response_id request_id next_look tokens cost",
        created_at={"type": "number", "description": "seconds since 1970"},
        waiting={"type": "string", "description": "why it makes no progress, or nothing"},
        cancel_requested=_TRUE,
        response_id=maybe,
        request_id=maybe,
        next_look={**some, "description": "seconds until the service is asked again"},
        tokens={"anyOf": [tokens, {"type": "null"}]},
        cost={**some, "description": "US dollars, an estimate"},
    )
