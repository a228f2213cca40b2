"""
A loopback stand-in for Azure OpenAI's background Responses API, in a process of its own.

    with Emulator(knobs="seconds=1 fault=429 retry_after=1") as emulator:
        client = AsyncOpenAI(base_url=emulator.endpoint + "/openai/v1/", api_key=emulator.api_key)

Real HTTP on a real socket, so time-outs, resets and half-sent answers are real too; no model is asked and
nothing is billed. The page at ``{endpoint}/emulator`` lists what is modelled, on whose word, and every knob.

The modules, each importing only those above it::

    _knobs      what may be turned, and the one grammar that turns it
    _wire       a request's bytes to a Request, a Reply to bytes
    _server     connections: one exchange at a time on each
    _errors     refusals, in the words of Azure
    _faults     what goes wrong, and when
    _quota      the sliding minute behind 429 and the x-ratelimit headers
    _creation   a create request, understood or refused
    _responses  one modelled response and its clock
    _stream     the same response told as server-sent events
    _service    the four verbs: create, look, cancel, delete
    _page       the page that says what is modelled
    _app        the front door: host, key, route, headers, control
    __main__    the process
    _launcher   Emulator: starts the process and talks to it (imports only _knobs of these)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from o3pro_bg.emulator._launcher import Emulator

__all__ = ["Emulator"]


def __getattr__(name: str) -> object:
    # Loaded on first use (PEP 562): the child process passes through this module too and needs no launcher.
    if name == "Emulator":
        from o3pro_bg.emulator._launcher import Emulator

        return Emulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
