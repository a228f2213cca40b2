"""Every verb of the command, with its options, its help and its examples."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Final

from o3pro_bg import __version__
from o3pro_bg.cli._exits import Exit
from o3pro_bg.cli._place import EFFORTS

if TYPE_CHECKING:
    from collections.abc import Callable

_STATUSES: Final = ("started", "running", "completed", "failed", "cancelled")
_CODES: Final = "\n".join(f"  {int(code):>3}  {code.meaning}" for code in Exit)


def parser() -> argparse.ArgumentParser:
    """Answer the parser; the module and the function that do a verb are in its `run`, as `module:function`."""
    whole = argparse.ArgumentParser(
        prog="o3pro-bg",
        description="Ask Azure OpenAI's reasoning models, walk away, and come back for the answer.",
        epilog=f"exit codes:\n{_CODES}\n\nan ID may be shortened, as in git; it may also be a response's id",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=f"o3pro-bg {__version__}")
    verbs = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for describe in (_asking, _reading, _changing, _batching, _working, _helping):
        describe(_Verbs(verbs))
    return whole


class _Verbs:
    """Adds verbs that share options."""

    def __init__(self, verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        self._verbs = verbs

    def add(
        self,
        name: str,
        run: str,
        what: str,
        *examples: str,
        parts: tuple[Callable[[argparse.ArgumentParser], None], ...] = (),
    ) -> argparse.ArgumentParser:
        """Add a verb: its name, where it is done, what it does, examples, and what adds options that others share."""
        verb = self._verbs.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog="\n".join(["examples:", *(f"  {_whole(example)}" for example in examples)]) if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        verb.set_defaults(run=run)
        for part in parts:
            part(verb)
        return verb


def _whole(example: str) -> str:
    return example if "| o3pro-bg" in example else f"o3pro-bg {example}"


def _asking(verbs: _Verbs) -> None:
    ask = verbs.add(
        "ask",
        "_asking:ask",
        "ask a question, wait, and print the answer",
        'ask "Is 2^61 - 1 a prime number?" --effort high',
        "ask @question.txt --instructions 'Answer in one sentence.' > answer.txt",
        "git diff | o3pro-bg ask - -i 'Review this change.'",
        parts=(_a_question, _a_request, _as_json, _a_place),
    )
    _a_wait(ask)
    verbs.add(
        "submit",
        "_asking:submit",
        "ask a question, print the id of its job, and go",
        'submit "Prove that there are infinitely many primes." -e high',
        "submit @question.txt --dedupe-key chapter-1",
        parts=(_a_question, _a_request, _as_json, _a_place),
    )


def _reading(verbs: _Verbs) -> None:
    verbs.add("status", "_reading:status", "tell how far a job is", "status 46f2", parts=(_a_job, _as_json, _a_place))
    result = verbs.add(
        "result",
        "_reading:result",
        "print the answer of a job",
        "result 46f2 > answer.txt",
        "result 46f2 --wait --timeout 600",
        parts=(_a_job, _as_json, _a_place),
    )
    result.add_argument("--wait", action="store_true", help="wait until the job has ended")
    _a_wait(result)
    listed = verbs.add(
        "list",
        "_reading:list_jobs",
        "list the jobs under way and those of the last day",
        "list --all",
        "list --status failed --json",
        parts=(_as_json, _a_place),
    )
    listed.add_argument("--all", action="store_true", help="list those that ended earlier, too")
    listed.add_argument(
        "--status", action="append", choices=_STATUSES, help="list those of this status; may be given several times"
    )
    watch = verbs.add(
        "watch",
        "_watching:watch",
        "show jobs until they have ended",
        "watch",
        "watch 46f2 5eb5 --json",
        parts=(_as_json, _a_place),
    )
    watch.add_argument("jobs", nargs="*", metavar="ID", help="the jobs; default: all that are under way")


def _changing(verbs: _Verbs) -> None:
    some = (_some_jobs, _as_json, _a_place)
    verbs.add("cancel", "_changing:cancel", "cancel jobs at the service", "cancel 46f2 5eb5", parts=some)
    remove = verbs.add("rm", "_changing:remove", "forget jobs that have ended", "rm 46f2", parts=some)
    prune = verbs.add(
        "prune",
        "_changing:prune",
        "forget the jobs that ended long ago",
        "prune --older-than 7d",
        "prune --older-than 12h --dry-run",
        parts=(_as_json, _a_place),
    )
    prune.add_argument("--older-than", required=True, metavar="AGE", help="such as 7d, 12h, 30m, 90s, 2w")
    prune.add_argument("--dry-run", action="store_true", help="print the ids, and forget nothing")
    for verb in (remove, prune):
        verb.add_argument("--remote", action="store_true", help="delete the response at the service first")
    attach = verbs.add(
        "attach",
        "_changing:attach",
        "take up a response that exists already, and print the id of its job",
        "attach resp_0123456789abcdef",
        parts=(_a_place,),
    )
    attach.add_argument("response", metavar="RESPONSE", help="the service's id of it, or a continuation token")


def _batching(verbs: _Verbs) -> None:
    batch = verbs.add(
        "batch",
        "_batch:batch",
        "ask every question of a file, and print a line of JSON for each that ends",
        "batch questions.jsonl > results.jsonl   # run it again after a crash: nothing is asked twice",
        "batch questions.jsonl --retry-failed --concurrency 20",
        parts=(_a_request, _a_place),
    )
    batch.add_argument(
        "file",
        metavar="FILE",
        help='a question a line, as JSON: "text", or {"question": ..., "effort": ..., "id": ...} with any other '
        "argument of the Responses API; - is standard input",
    )
    batch.add_argument(
        "--name",
        help="what it is known by; default: the name of the file. Another name, question, effort, deployment or option "
        "of the API is asked anew; another deadline or priority is not",
    )
    batch.add_argument(
        "--retry-failed", action="store_true", help="ask anew, and pay for it, what failed or was cancelled"
    )
    most = "the most jobs under way at the service at once; with a database, that of its workers counts"
    batch.add_argument("--concurrency", type=_count, metavar="N", help=most)


def _working(verbs: _Verbs) -> None:
    worker = verbs.add(
        "worker",
        "_working:work",
        "live the jobs of a database, beside the workers of other machines, until Ctrl-C or SIGTERM",
        "worker --database postgresql://user@host/name -v",
        "worker --concurrency 50   # with O3PRO_BG_DATABASE set",
        parts=(_a_place,),
    )
    most = "the most jobs under way at once, by all workers together: who starts last is right; default: no bound"
    worker.add_argument("--concurrency", type=_count, metavar="N", help=most)
    worker.add_argument("--at-hand", type=_count, default=1000, metavar="N", help="the most of this one; default: 1000")
    pace = "the most creates a minute, by all workers together; default: what the service says"
    worker.add_argument("--requests-per-minute", type=_count, metavar="N", help=pace)


def _helping(verbs: _Verbs) -> None:
    doctor = verbs.add(
        "doctor",
        "_doctor:doctor",
        "look at the configuration, the credential, the service and the store, and say what to mend",
        "doctor",
        "doctor --live   # asks the deployment tiny questions, which cost some cents",
        parts=(_as_json, _a_place),
    )
    doctor.add_argument("--live", action="store_true", help="also find out how this very deployment behaves")
    serve = verbs.add(
        "serve",
        "_serving:serve",
        "serve a page and an HTTP API of the jobs, on this machine, until Ctrl-C",
        "serve",
        "serve --port 8080",
        "serve --host 0.0.0.0   # asks for a token: O3PRO_BG_TOKEN, or one that is made",
        "serve --database postgresql://user@host/name   # the jobs that workers live",
        parts=(_a_place,),
    )
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen at; default: 127.0.0.1")
    serve.add_argument("--port", type=_port, default=8765, help="the port; default: 8765; 0 is a free one")
    what = "see the library at work against the emulator: no account, no cost"
    verbs.add("demo", "_edges:demo", what, "demo", parts=(_as_json,))
    emulator = verbs.add(
        "emulator",
        "_edges:emulator",
        "run the emulator, a stand-in for the service on this machine, until Ctrl-C",
        "emulator --port 8080 --knobs 'seconds=5 latency=0.05'",
    )
    emulator.add_argument("--port", type=_port, default=0, help="the port; default: a free one")
    emulator.add_argument("--knobs", default="", metavar="'KEY=VALUE ...'", help="how it behaves; see /emulator")
    completion = verbs.add(
        "completion",
        "_edges:completion",
        "print what makes a shell complete this command",
        "completion bash > ~/.local/share/bash-completion/completions/o3pro-bg",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def _a_question(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("question", metavar="QUESTION", help="the question; - is standard input, @FILE a file")
    verb.add_argument("--dedupe-key", metavar="TEXT", help="a name for it: where a job has it, no new one is started")


def _a_request(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("-e", "--effort", choices=EFFORTS, default="low", help="the reasoning effort; default: low")
    verb.add_argument("-i", "--instructions", metavar="TEXT", help="what the model is told beside it; - or @FILE, too")
    verb.add_argument("-m", "--max-output-tokens", type=_count, metavar="N", help="the most tokens of an answer")
    verb.add_argument(
        "-o", "--option", nargs=2, action="append", metavar=("NAME", "VALUE"), help="any argument of the Responses API"
    )
    verb.add_argument("--deadline", type=_seconds, metavar="SECONDS", help="after which a job is cancelled, and fails")
    verb.add_argument("--priority", type=int, default=0, help="jobs of a higher one are sent first; default: 0")


def _a_wait(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="how long to wait; the job goes on then")


def _a_job(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("job", metavar="ID", help="the job")


def _some_jobs(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("jobs", nargs="+", metavar="ID", help="the jobs")


def _as_json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="print what the library answers, as JSON")


def _a_place(verb: argparse.ArgumentParser) -> None:
    _a_service(verb)
    place = verb.add_mutually_exclusive_group()
    where = "the file of the jobs; default: jobs.db in O3PRO_BG_HOME, or where the platform keeps state"
    place.add_argument("--store", metavar="FILE", help=where)
    what = "the database of the jobs that workers live; default: O3PRO_BG_DATABASE, where no list of processes "
    place.add_argument("--database", default="", metavar="URL", help=what + "shows its password, or the file")


def _a_service(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--endpoint", metavar="URL", help="the resource; default: AZURE_OPENAI_ENDPOINT")
    verb.add_argument("--deployment", metavar="NAME", help="default: AZURE_OPENAI_DEPLOYMENT, or o3-pro")
    verb.add_argument("--env-file", metavar="FILE", help="a .env file to take what the environment does not set from")
    verb.add_argument("-v", "--verbose", action="store_true", help="tell on standard error what becomes of each job")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!a} is no number of seconds above 0")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:19]) < 2**63):
        raise argparse.ArgumentTypeError(f"{text!a} is no number above 0")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text[:9]) < 2**16):
        raise argparse.ArgumentTypeError(f"{text!a} is no port: 0 to 65535")
    return int(text)
