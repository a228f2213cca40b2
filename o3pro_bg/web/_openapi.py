"""The description of the HTTP API, for clients and their generators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from o3pro_bg import __version__
from o3pro_bg.web._schemas import EVENT, STATUS, TEXT, TRUE, ref, schemas

if TYPE_CHECKING:
    from collections.abc import Collection

    from o3pro_bg.web._wire import Bounds


def document(bounds: Bounds, efforts: Collection[str]) -> dict[str, Any]:
    """Answer the OpenAPI document of the API, which takes no more than these bounds, and these efforts."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "o3pro_bg",
            "version": __version__,
            "description": "Background jobs for Azure OpenAI reasoning models: start one, get its id, come back for "
            "the answer, cancel for real.",
        },
        "servers": [{"url": "."}],
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
            "schemas": schemas(bounds, efforts),
        },
    }


def _answer(description: str, schema: str, **headers: str) -> dict[str, Any]:
    described = {name: {"description": text, "schema": TEXT} for name, text in headers.items()}
    content = {"application/json": {"schema": ref(schema)}}
    return {"description": description, "content": content, **({"headers": described} if headers else {})}


_REFUSED: Final = {
    "400": _answer("the request cannot be read, or the server is not asked by a name of its own", "Refusal"),
    "401": _answer("a token is needed", "Refusal"),
    "403": _answer("another machine, or another site, asks", "Refusal"),
    "503": _answer("jobs cannot be taken on, or known, here and now", "Refusal"),
}
_SENSELESS: Final = {"422": _answer("a parameter makes no sense", "Refusal")}
_UNKNOWN: Final = {"404": _answer("there is no such job", "Refusal")}
_JOB_ID: Final = {
    "name": "job_id",
    "in": "path",
    "required": True,
    "description": "the id of a job",
    "schema": {"type": "string", "pattern": "^[0-9A-Za-z_-]+$"},
}
_DETAILS: Final = {
    "name": "details",
    "in": "query",
    "description": "whether to tell times, tokens and costs as well",
    "schema": TRUE,
}


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _listing() -> dict[str, Any]:
    return {
        "summary": "list jobs, the newest first",
        "operationId": "list_active_jobs",
        "parameters": [
            _query("status", "only those of this status", STATUS),
            _query("q", "only those whose question holds this text, or whose id begins so", TEXT),
            _query("limit", "how many at the most", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
            _query("offset", "how many to leave out", {"type": "integer", "minimum": 0, "maximum": 10**9}),
            _DETAILS,
        ],
        "responses": {
            "200": _answer("the jobs", "JobList"),
            **_SENSELESS,
            **_REFUSED,
        },
    }


def _starting() -> dict[str, Any]:
    return {
        "summary": "start a job",
        "operationId": "start_background_task",
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref("Question")}}},
        "responses": {
            "202": {
                **_answer("the job is under way", "Started", Location="where it is told how far it is"),
                "links": {
                    verb: {"operationId": verb, "parameters": {"job_id": "$response.body#/job_id"}}
                    for verb in ("check_status", "get_result", "cancel_job", "remove_job")
                },
            },
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
        "responses": {"200": _answer("how far it is", "Status"), **_SENSELESS, **_UNKNOWN, **_REFUSED},
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
            _query("after", "the id of an event, such as the list's last_event_id", TEXT),
            {"name": "Last-Event-ID", "in": "header", "description": "the same", "schema": TEXT},
        ],
        "responses": {
            "200": {"description": "the events", "content": {"text/event-stream": {"schema": EVENT}}},
            **_SENSELESS,
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
