"""The page that says what is modelled, on whose word, and every knob."""

from collections.abc import Iterable
from html import escape

from o3pro_bg.emulator._knobs import FAULTS, describe

DOCUMENTED = "documentation"
SDK = "measured on the SDK"
USER = "a user's report"
PEERS = "measured on compatible servers"
ASSUMED = "our assumption"

BEHAVIOURS = (
    (
        "A create with background answers at once, queued; then in_progress, then a terminal status",
        DOCUMENTED,
    ),
    ("Background needs store; a create with store false is refused with 400", DOCUMENTED),
    ("The deployment's name goes in the body as model, never into the path", SDK),
    ("A dated path needs api-version; the v1 path does not", DOCUMENTED),
    ("A key comes as api-key, a token as Authorization: Bearer; the emulator takes its key as either", SDK),
    ("o3-pro cannot be streamed at create", DOCUMENTED),
    ("Metadata: at most 16 pairs, key up to 64, value up to 512 characters", DOCUMENTED),
    (
        "A response can be looked at, cancelled, deleted, and its stream resumed after an event's number",
        DOCUMENTED,
    ),
    ("A cancel can be repeated; only a background response can be cancelled", DOCUMENTED),
    ("A cancel of a finished response answers 200 with its terminal state", PEERS),
    ("A cancel may be refused with 400 or 409 and the job run on (cancel_status)", PEERS),
    ("A cancelled response may read completed, with usage, minutes later (late_completion)", USER),
    ("A delete answers 200 with deleted true", DOCUMENTED),
    ("A response can be deleted while it runs; once deleted it answers 404 to every verb", ASSUMED),
    ("A failed job arrives as HTTP 200 with status failed and an error.code (outcome, code)", USER),
    ("An incomplete response keeps its partial text and its usage (outcome, reason)", ASSUMED),
    ("created_at and output may be null while queued (nulls)", USER),
    ("A job may never be seen in_progress (skip_progress), or for ever (outcome=never)", PEERS),
    ("A status word may be unknown (word), and a look may go back to queued (backwards)", ASSUMED),
    ("A stored response may answer 404 for ever after (lost_after)", PEERS),
    ("A fresh response may answer 404 at first (missing_first)", ASSUMED),
    ("A response's stream is refused with 400 after five minutes (stream_max_age)", USER),
    ("A stream may end without a terminal event, silently (cut)", SDK),
    ("The stream of a cancelled response ends without a terminal event", ASSUMED),
    ("429 may carry retry-after or retry-after-ms", DOCUMENTED),
    ("503 may carry them too, and retry-after may be a date", ASSUMED),
    ("Every answer carries x-ratelimit headers for the limits that are set (rpm, tpm)", DOCUMENTED),
    ("A create sets aside the tokens of its question and its max_output_tokens", DOCUMENTED),
    ("A create that would set aside more than a minute's tokens (tpm) is refused with 429 each time", ASSUMED),
    ("Creates refused for the rate do not count against it again", ASSUMED),
    ("The bodies of 400, 401, 403, 404 and 429", USER),
    ("The bodies of 408, 409, 500 and 503", ASSUMED),
    ("Answers of 200 that are no response: HTML, empty, cut, null, [] and {}", SDK),
    ("A foreground create holds its connection; when the client leaves, the job is cancelled", ASSUMED),
    ("usage is computed from the lengths of question and answer and from the effort", ASSUMED),
    ("Knobs in metadata and prompt; ids, model and text that name the emulator", "the emulator's own"),
)

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 0 0 2rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #8884; }
code { font: .9em ui-monospace, monospace; }
"""


def page() -> bytes:
    """Returns the page at ``/emulator``."""
    behaviours = _table(
        ("Behaviour", "Source", "Checked against Azure"),
        ((escape(says), escape(source), "not yet") for says, source in BEHAVIOURS),
    )
    knobs = _table(
        ("Knob", "Default", "Takes", "Does"),
        ((_code(name), _code(default), escape(wants), escape(says)) for name, default, wants, says in describe()),
    )
    faults = _table(("fault=", "What happens"), ((_code(name), escape(says)) for name, says in FAULTS.items()))
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>o3pro_bg emulator</title>'
        f"<style>{_STYLE}</style></head><body><h1>o3pro_bg emulator</h1>"
        "<p>A stand-in for Azure OpenAI's background Responses API. It asks no model: every answer is made "
        "up. Nothing below is checked against Azure: not yet.</p>"
        f"<h2>What is modelled</h2>{behaviours}"
        "<h2>Knobs</h2><p><code>key=value</code> words separated by spaces: of the server, in a create's "
        "metadata as <code>emulator</code>, or in a prompt as <code>[emulator key=value]</code>. Later wins. "
        f"Times are in seconds.</p>{knobs}"
        f"<h2>Faults</h2>{faults}</body></html>\n"
    ).encode()


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>" if text else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    body = "".join(_row("td", row) for row in rows)
    return f"<table><thead>{_row('th', head)}</thead><tbody>{body}</tbody></table>"


def _row(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"
