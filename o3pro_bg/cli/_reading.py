"""`status`, `result` and `list`: what is known of the jobs."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Final

from o3pro_bg import _replies
from o3pro_bg._prices import PRICES, cost_of
from o3pro_bg._shown import duration, one_line, padded
from o3pro_bg.cli._exits import Exit, Stop, of_status
from o3pro_bg.cli._jobs import Shelf, shelf_of, shortened
from o3pro_bg.cli._place import GLANCE, check_endpoint, config_of, handler_of, language
from o3pro_bg.cli._screen import put, put_json, say
from o3pro_bg.cli._words import glyph, spent, why

if TYPE_CHECKING:
    import argparse

    from o3pro_bg._records import JobRecord
    from o3pro_bg._replies import ResultReply

_DAY: Final = 86400.0  # seconds for which an ended job is listed without --all


def status(arguments: argparse.Namespace) -> Exit:
    """Tell how far a job is; the service is asked where nobody else does."""
    shelf = shelf_of(arguments)
    record = shelf.find(arguments.job)
    if shelf.unwatched([record]):
        shelf, record = _looked_at(arguments, record)
    if arguments.json:
        put_json(_replies.status(record, shelf.now, language()))
        return of_status(record.status.value)
    for line in _described(record, shelf.now):
        put(line)
    return of_status(record.status.value)


def result(arguments: argparse.Namespace) -> Exit:
    """Print the answer of a job that has completed, or wait for it."""
    shelf = shelf_of(arguments)
    record = shelf.find(arguments.job)
    if arguments.wait and not record.status.is_terminal:
        from o3pro_bg.cli._asking import Presses, wait_for

        check_endpoint(record, config_of(arguments))
        with Presses() as presses, handler_of(arguments) as handler:
            return wait_for(handler, record.job_id, arguments, presses)
    if record.lacks_answer:
        with handler_of(arguments) as handler:
            return tell_result(handler.get_result(record.job_id), as_json=arguments.json)
    if shelf.unwatched([record]):
        shelf, record = _looked_at(arguments, record)
        if record.waiting:
            say(f"o3pro-bg: {why(record.waiting)}")
    return tell_result(_replies.result(record, shelf.now, language()), as_json=arguments.json)


def tell_result(reply: ResultReply, *, as_json: bool) -> Exit:
    """Print what `get_result` answers: the answer alone, or all of it as JSON."""
    if as_json:
        put_json(reply)
    elif reply["success"]:
        put(reply["response"])
    else:
        if "response" in reply:  # as far as the model came
            put(reply["response"])
        say(f"o3pro-bg: {reply['error']}")
    return of_status(reply["status"]) if "status" in reply else Exit.NOT_FOUND


def list_jobs(arguments: argparse.Namespace) -> Exit:
    """List the jobs: those under way and of the last day, or all, or those of some statuses."""
    shelf = shelf_of(arguments)
    records = [record for record in shelf.records if _is_listed(record, arguments, shelf.now)]
    if arguments.json:
        put_json([_replies.listed(record, shelf.now) for record in records])
    else:
        _put_table(records, shelf)
    if unwatched := shelf.unwatched(records):
        here = [record for record in unwatched if record.request.endpoint == config_of(arguments).resource]
        if here:
            say(f"nobody watches {len(here)} of them: what they say is old; `o3pro-bg watch` asks the service")
        if elsewhere := len(unwatched) - len(here):
            say(f"nobody watches {elsewhere} of them, which belong to another endpoint than the configured one")
    return Exit.COMPLETED


def _described(record: JobRecord, now: float) -> list[str]:
    """Answer some lines about a job, for people."""
    word = record.status.value
    lines = [
        f"{glyph(word, sys.stdout)} {word}  {duration(record.elapsed(now))}  {record.request.effort}",
        f"job       {record.job_id}",
        f"question  {one_line(record.request.question, 68)}",
    ]
    if record.response_id is not None:
        lines.append(f"response  {record.response_id}")
    if record.waiting:
        lines.append(f"waiting   {why(record.waiting)}")
    if (error := _replies.error_of(record, language())) is not None:
        lines.append(f"error     {error}")
    if took := spent(record.usage, cost_of(record.usage, record.model, record.request.deployment, PRICES)):
        lines.append(f"took      {took}")
    return lines


def _looked_at(arguments: argparse.Namespace, record: JobRecord) -> tuple[Shelf, JobRecord]:
    """Have the service asked once about a job that nobody watches, and answer what is known then."""
    try:
        check_endpoint(record, config_of(arguments))
        with handler_of(arguments) as handler:
            handler.close(GLANCE)
    except Stop as stop:
        say(f"o3pro-bg: the service was not asked, and this may be old: {stop}")
    shelf = shelf_of(arguments)
    return shelf, shelf.find(record.job_id)


def _is_listed(record: JobRecord, arguments: argparse.Namespace, now: float) -> bool:
    if arguments.status:
        return record.status.value in arguments.status
    return arguments.all or record.ended is None or now - record.ended < _DAY


def _put_table(records: list[JobRecord], shelf: Shelf) -> None:
    if not records:
        say("no jobs" + (" (of the last day; --all lists all)" if shelf.records else ""))
        return
    short = shortened(record.job_id for record in shelf.records)
    width = max(len(name) for name in short.values())
    room = max(20, (shutil.get_terminal_size().columns if sys.stdout.isatty() else 200) - width - 46)
    put(f"{'job':<{width}}  {'status':<11}  {'effort':<7}  {'elapsed':>11}  {'submitted':<10}  question")
    for record in records:
        word = record.status.value
        sign = padded(f"{glyph(word, sys.stdout)} {word}", 11)
        when = time.localtime(record.created_at)
        is_today = time.time() - record.created_at < _DAY / 2
        submitted = time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d", when)
        question = one_line(record.request.question, room)
        put(
            f"{short[record.job_id]:<{width}}  {sign}  {record.request.effort:<7}  "
            f"{duration(record.elapsed(shelf.now)):>11}  {submitted:<10}  {question}"
        )
