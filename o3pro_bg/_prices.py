"""What a job costs: an estimate from its tokens and a small, dated table of list prices."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from o3pro_bg._figures import is_figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from o3pro_bg._records import Usage


@dataclass(frozen=True, slots=True)
class Price:
    """
    What a model costs, in US dollars per million tokens.

    Attributes:
        input: For the tokens of the question.
        output: For the tokens of the answer and of the reasoning.
        cached_input: For tokens of the question that the service had in its cache; None counts them as any other.

    Raises:
        ValueError: A figure is negative, not finite, or none at all.
    """

    input: float
    output: float
    cached_input: float | None = None

    def __post_init__(self) -> None:
        figures = (self.input, self.output, 0.0 if self.cached_input is None else self.cached_input)
        if not all(map(is_figure, figures)):
            raise ValueError("Price takes finite figures that are not negative")


PRICES: Final[Mapping[str, Price]] = MappingProxyType(
    {
        "o3-pro": Price(20, 80),
        "gpt-5-pro": Price(15, 120),
        "gpt-5.2-pro": Price(21, 168),
        "gpt-5.4-pro": Price(30, 180),
        "gpt-5.5-pro": Price(30, 180),
    }
)
"""
List prices as found in November 2026, by model: pay as you go, global deployments, up to 272,000 tokens of input.

They are the `azure/` rows of LiteLLM's `model_prices_and_context_window.json`, and agree with OpenAI's own prices as
simonw/llm-prices collects them. The two differ on cached input of gpt-5.4-pro and gpt-5.5-pro, which is therefore
counted as any input. Left out is what has no settled price: gpt-5.6-sol had a promotional one, promised until
21 November 2026. A bill also depends on the kind of deployment, the region, the length of the prompt and the contract.
"""

_VERSION: Final = re.compile(r"(-[0-9]{4}.*)?", re.DOTALL)  # nothing, or a date such as -2025-06-10


def cost_of(usage: Usage | None, model: str | None, deployment: str, prices: Mapping[str, Price]) -> float | None:
    """
    Answer about what these tokens cost, in US dollars; None where usage or price is unknown, or the figures are odd.

    Args:
        usage: The tokens that the service billed.
        model: The model's name as the service calls it, such as `"o3-pro-2025-06-10"`.
        deployment: The deployment's name, which serves where the model's has no price.
        prices: The user's prices, which go before `PRICES`, by model or deployment; a key also stands for the
            versions of its model, but not for its relatives: `"gpt-5"` is neither `"gpt-5-pro"` nor `"gpt-5.2"`.
    """
    price = _price_of((model or "", deployment), prices)
    if usage is None or price is None:
        return None
    bill = (
        (usage.input_tokens - usage.cached_tokens, price.input),
        (usage.cached_tokens, price.input if price.cached_input is None else price.cached_input),
        (usage.output_tokens, price.output),
    )
    if any(tokens < 0 for tokens, _ in bill):
        return None
    try:
        dollars = sum(tokens * rate for tokens, rate in bill) / 1_000_000
    except OverflowError:
        return None
    return dollars if dollars <= sys.float_info.max else None


def _price_of(names: tuple[str, ...], prices: Mapping[str, Price]) -> Price | None:
    for table in (prices, PRICES):
        for name in names:
            if keys := [key for key in table if name.startswith(key) and _VERSION.fullmatch(name, len(key))]:
                return table[max(keys, key=len)]
    return None
