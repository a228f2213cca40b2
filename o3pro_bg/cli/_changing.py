"""`cancel`, `rm`, `prune` and `attach`: what changes jobs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from o3pro_bg import _replies
from o3pro_bg._sentences import say as say_in
from o3pro_bg.cli._exits import OF_STATUS, Exit, Stop
from o3pro_bg.cli._jobs import shelf_of, shortened
from o3pro_bg.cli._place import GLANCE, check_endpoint, config_of, handler_of, language, opened_store
from o3pro_bg.cli._screen import put, put_json, say
from o3pro_bg.cli._words import why
from o3pro_bg.errors import InvalidRequest

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from o3pro_bg._records import JobRecord
    from o3pro_bg._replies import CancelReply
    from o3pro_bg._stores import Store

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def cancel(arguments: argparse.Namespace) -> Exit:
    """Cancel jobs at the service."""
    shelf = shelf_of(arguments)
    found = [shelf.find(text) for text in arguments.jobs]
    for record in found:
        check_endpoint(record, config_of(arguments))
    with handler_of(arguments) as handler:
        code = _each([record.job_id for record in found], handler.cancel_job, arguments, "cancelled")
        for waiting in {handler.job(record.job_id).waiting for record in found if record.job_id in handler.jobs} - {""}:
            say(f"o3pro-bg: {why(waiting)}")
    return code


def remove(arguments: argparse.Namespace) -> Exit:
    """Forget jobs that have ended."""
    shelf = shelf_of(arguments)
    return _forget([shelf.find(text) for text in arguments.jobs], arguments)


def prune(arguments: argparse.Namespace) -> Exit:
    """Forget the jobs that ended long ago."""
    age = seconds_of(arguments.older_than)
    shelf = shelf_of(arguments)
    found = [record for record in shelf.records if record.ended is not None and shelf.now - record.ended > age]
    if not arguments.dry_run:
        return _forget(found, arguments)
    for record in found:
        put_json(_replies.listed(record, shelf.now)) if arguments.json else put(record.job_id)
    return Exit.COMPLETED


def attach(arguments: argparse.Namespace) -> Exit:
    """Take up a response that exists already, and print the id of its job."""
    with handler_of(arguments) as handler:
        try:
            job = handler.attach(arguments.response)
        except InvalidRequest as refused:
            raise Stop(Exit.USAGE, str(refused)) from None
        put(job.id)
        handler.close(GLANCE)  # which asks the service once
        if job.waiting:
            say(f"o3pro-bg: {why(job.waiting)}")
    return Exit.COMPLETED


def seconds_of(text: str) -> float:
    """Answer the seconds of an age such as 7d, 12h, 30m, 90s or 2w; raises `Stop`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if found is None:
        raise Stop(Exit.USAGE, f"{text!a} is no age: say 7d, 12h, 30m, 90s or 2w")
    return float(found[1]) * _UNITS[found[2]]


def _forget(records: list[JobRecord], arguments: argparse.Namespace) -> Exit:
    """Forget these jobs; the service is only needed where they are to be deleted there, too."""
    if not records:
        return Exit.COMPLETED
    if arguments.remote:
        with handler_of(arguments) as handler:
            ids = [record.job_id for record in records]
            return _each(ids, lambda job_id: handler.remove_job(job_id, delete_remote=True), arguments, "removed")
    store = opened_store(arguments)
    try:
        return _each([record.job_id for record in records], lambda job_id: _drop(store, job_id), arguments, "removed")
    finally:
        store.close().result()


def _drop(store: Store, job_id: str) -> CancelReply:
    record = store.get(job_id)
    if record is None:  # another process was faster
        return {"success": False, "error": say_in(language(), "not_found", job_id=job_id)}
    if not record.status.is_terminal:
        return _replies.left_alone(record, language(), "not_finished")
    store.remove(job_id).result()
    return _replies.removed(record)


def _each(job_ids: Iterable[str], verb: Callable[[str], CancelReply], arguments: argparse.Namespace, done: str) -> Exit:
    """Do it to each of these jobs, tell what came of it, and answer the code of the worst."""
    codes = {Exit.COMPLETED}
    ids = [*dict.fromkeys(job_ids)]
    short = shortened(ids)
    for job_id in ids:
        reply = verb(job_id)
        if arguments.json:
            put_json(reply)
        if reply["success"]:
            say(f"{short[job_id]} {done}")
            continue
        say(f"o3pro-bg: {short[job_id]}: {reply['error']}")
        codes.add(_code_of(reply))
    return max(codes, key=[Exit.COMPLETED, Exit.NOT_FOUND, Exit.NOT_FINISHED, Exit.FAILED].index)


def _code_of(reply: CancelReply) -> Exit:
    """Answer the code of what could not be done to a job."""
    if "status" not in reply:
        return Exit.NOT_FOUND
    return Exit.FAILED if reply["status"] in OF_STATUS else Exit.NOT_FINISHED
