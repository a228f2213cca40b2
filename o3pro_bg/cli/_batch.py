"""`batch`: many questions from a file, one line of JSON for each that ends; run again, it asks nothing twice."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from o3pro_bg.cli._asking import check, options_of, text_of
from o3pro_bg.cli._exits import Exit, Stop
from o3pro_bg.cli._place import config_of, database_of, handler_of
from o3pro_bg.cli._screen import put_json, say
from o3pro_bg.cli._watching import drawn, ticks
from o3pro_bg.errors import JobCancelled, JobFailed, SubmissionUncertain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from o3pro_bg.handler import BackgroundHandler
    from o3pro_bg.job import Job


_OURS: Final = frozenset({"dedupe_key", "self"})


class Question(NamedTuple):
    """
    A line of the file.

    Attributes:
        number: Of the line, from 1 on.
        name: What the line calls itself (its `id`), or None.
        arguments: What the handler is asked with; by its `dedupe_key` it is known when the batch is run again.
    """

    number: int
    name: Any
    arguments: dict[str, Any]


def batch(arguments: argparse.Namespace) -> Exit:
    """Ask every question of the file that was not asked before, and print each result as it comes."""
    name = arguments.name or os.path.basename(arguments.file)
    if arguments.concurrency is not None and database_of(arguments) is not None:
        raise Stop(Exit.USAGE, "--concurrency is that of the workers here: o3pro-bg worker --concurrency")
    questions = list(_questions(_lines(arguments.file), name, arguments))
    with handler_of(arguments, max_concurrency=arguments.concurrency) as handler:
        went_well = True
        try:
            jobs = [_job_of(handler, question, retries=arguments.retry_failed) for question in questions]
            of_job = {job.id: question for job, question in zip(jobs, questions, strict=True)}
            with drawn(jobs, is_wanted=not sys.stdout.isatty()) as draw:  # else the results are what is seen
                for ended in ticks(jobs):
                    for job in ended:
                        reply = handler.get_result(job.id)
                        went_well = went_well and reply["success"]
                        _put_result(of_job[job.id], {"job_id": job.id, **reply})
                    draw()
        except KeyboardInterrupt:
            say("left: the jobs go on. The same command comes back to them, and asks nothing twice.")
            return Exit.INTERRUPTED
    return Exit.COMPLETED if went_well else Exit.FAILED


def _lines(path: str) -> Iterator[tuple[int, str]]:
    text = text_of("-" if path == "-" else f"@{path}")
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _questions(lines: Iterator[tuple[int, str]], name: str, arguments: argparse.Namespace) -> Iterator[Question]:
    """Answer the questions of a file; raises `Stop` for the first line that is none, before anything is asked."""
    seen: Counter[str] = Counter()
    config = config_of(arguments)
    common = {
        "effort": arguments.effort,
        "timeout": arguments.deadline,
        "priority": arguments.priority,
        **options_of(arguments),
    }
    for number, line in lines:
        facts = {**common, **_facts(number, line)}
        called = facts.pop("id", None)
        question, effort = facts.pop("question"), facts.pop("effort")
        more = {"timeout": facts.pop("timeout"), "priority": facts.pop("priority")}
        check(config, question, effort, facts, more, f"line {number}: ")
        asked = json.dumps([name, config.deployment, question, effort, facts], sort_keys=True)
        digest = hashlib.sha256(asked.encode()).hexdigest()
        seen[digest] += 1  # the same question twice in a file is two questions
        key = f"batch:{digest}:{seen[digest]}"
        yield Question(number, called, {"question": question, "effort": effort, "dedupe_key": key, **more, **facts})


def _facts(number: int, line: str) -> dict[str, Any]:
    """Answer what a line says; raises `Stop` where it is no question."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise Stop(Exit.USAGE, f"line {number} is no JSON: {exc}") from None
    facts = {"question": value} if isinstance(value, str) else value
    if not isinstance(facts, dict) or not isinstance(facts.get("question"), str):
        raise Stop(Exit.USAGE, f'line {number} is neither a text nor an object with a "question"')
    if reserved := {*facts} & _OURS:
        raise Stop(Exit.USAGE, f"line {number}: {', '.join(sorted(reserved))} is not for a line of a batch")
    return facts


def _job_of(handler: BackgroundHandler, question: Question, *, retries: bool) -> Job:
    """Start what was not started before, and answer the job."""
    job = _started(handler, question)
    if retries and _has_no_answer(job):
        handler.remove_job(job.id)
        job = _started(handler, question)
    return job


def _has_no_answer(job: Job) -> bool:
    """Tell whether a job failed or was cancelled, and it is known whether the service had it."""
    try:
        if job.done():
            job.result()
    except SubmissionUncertain:
        return False
    except (JobFailed, JobCancelled):
        return True
    return False


def _started(handler: BackgroundHandler, question: Question) -> Job:
    started = handler.start_background_task(**question.arguments)
    if not started["success"]:  # it could not be written down
        raise Stop(Exit.CONFIGURATION, f"line {question.number}: {started['error']}")
    return handler.job(started["job_id"])


def _put_result(question: Question, reply: dict[str, Any]) -> None:
    """Print a result: which line it is of, and the specification's dictionary."""
    put_json({"line": question.number} | ({} if question.name is None else {"id": question.name}) | reply)
