"""`batch`: many questions from a file, one line of JSON for each that ends; run again, it asks nothing twice."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from o3pro_bg.cli._asking import options_of, text_of
from o3pro_bg.cli._exits import Exit, Stop
from o3pro_bg.cli._place import config_of, handler_of
from o3pro_bg.cli._screen import put_json, say
from o3pro_bg.cli._watching import drawn, ticks
from o3pro_bg.errors import JobCancelled, JobFailed, SubmissionUncertain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from o3pro_bg.handler import BackgroundHandler
    from o3pro_bg.job import Job


class Question(NamedTuple):
    """
    A line of the file.

    Attributes:
        number: Of the line, from 1 on.
        name: What the line calls itself (its `id`), or None.
        key: What this question is known by when the batch is run again.
        arguments: What the handler is asked with.
    """

    number: int
    name: Any
    key: str
    arguments: dict[str, Any]


def batch(arguments: argparse.Namespace) -> Exit:
    """Ask every question of the file that was not asked before, and print each result as it comes."""
    name = arguments.name or os.path.basename(arguments.file)
    questions = list(_questions(_lines(arguments.file), name, arguments))
    with handler_of(arguments, max_concurrency=arguments.concurrency) as handler:
        asked, refused = _start(handler, questions, retries=arguments.retry_failed)
        went_well = not refused
        of_job: dict[str, list[Question]] = {}
        for question, job in asked:
            of_job.setdefault(job.id, []).append(question)
        try:
            jobs = [*{job.id: job for _, job in asked}.values()]
            with drawn(jobs, is_wanted=not sys.stdout.isatty()) as draw:  # else the results are what is seen
                for ended in ticks(jobs):
                    for job in ended:
                        reply = handler.get_result(job.id)
                        went_well = went_well and reply["success"]
                        for question in of_job[job.id]:
                            _put_result(question, {"job_id": job.id, **reply})
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
    deployment = config_of(arguments).deployment
    common = {"effort": arguments.effort, "timeout": arguments.deadline, **options_of(arguments)}
    for number, line in lines:
        try:
            value = json.loads(line)
        except ValueError as exc:
            raise Stop(Exit.USAGE, f"line {number} is no JSON: {exc}") from None
        facts = {"question": value} if isinstance(value, str) else value
        if not isinstance(facts, dict) or not isinstance(facts.get("question"), str):
            raise Stop(Exit.USAGE, f'line {number} is neither a text nor an object with a "question"')
        called = facts.pop("id", None)
        asked = {**common, **facts}
        digest = hashlib.sha256(json.dumps([name, deployment, asked], sort_keys=True).encode()).hexdigest()
        seen[digest] += 1  # the same question twice in a file is two questions
        yield Question(number, called, f"batch:{digest}:{seen[digest]}", asked)


def _start(
    handler: BackgroundHandler, questions: list[Question], *, retries: bool
) -> tuple[list[tuple[Question, Job]], int]:
    """Start what was not started before; answer the jobs, and how many questions were refused."""
    asked, refused = [], 0
    for question in questions:
        started = _started(handler, question)
        if started["success"] and retries and _may_be_asked_again(handler.job(started["job_id"])):
            handler.remove_job(started["job_id"])
            started = _started(handler, question)
        if started["success"]:
            asked.append((question, handler.job(started["job_id"])))
        else:
            refused += 1
            _put_result(question, started)
    return asked, refused


def _may_be_asked_again(job: Job) -> bool:
    """Tell whether a job ended without an answer, in a way that certainly left nothing at the service to pay for."""
    try:
        if job.done():
            job.result()
    except SubmissionUncertain:
        return False
    except (JobFailed, JobCancelled):
        return True
    return False


def _started(handler: BackgroundHandler, question: Question) -> dict[str, Any]:
    try:
        return dict(handler.start_background_task(**question.arguments, dedupe_key=question.key))
    except TypeError as exc:
        raise Stop(Exit.USAGE, f"line {question.number}: {exc}") from None


def _put_result(question: Question, reply: dict[str, Any]) -> None:
    """Print a result: which line it is of, and the specification's dictionary."""
    put_json({"line": question.number} | ({} if question.name is None else {"id": question.name}) | reply)
