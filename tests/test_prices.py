"""What a job costs is estimated from its tokens, or not at all where that would be a guess."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg._prices import PRICES, Price, cost_of
from o3pro_bg._records import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

MILLION = 1_000_000
USAGE = Usage(input_tokens=MILLION, output_tokens=MILLION, reasoning_tokens=900_000)
TINY = Price(1, 2)


def cost(model: str | None, deployment: str = "mine", prices: Mapping[str, Price] | None = None) -> float | None:
    """Answer what a million tokens each way cost."""
    return cost_of(USAGE, model, deployment, prices or {})


# --- the sum ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(0, 0), 0.0),
        (Usage(1_000, 10_000, reasoning_tokens=8_000), 0.02 + 0.8),
        (Usage(200_000, 100_000, reasoning_tokens=99_000), 4.0 + 8.0),
        (Usage(1_000, 0, cached_tokens=1_000), 0.02),
    ],
)
def test_cost_of_o3_pro(usage: Usage, dollars: float) -> None:
    """A job of o3-pro costs 20 dollars per million tokens in, 80 out; reasoning is part of the output."""
    assert cost_of(usage, "o3-pro-2025-06-10", "mine", {}) == pytest.approx(dollars)


@pytest.mark.parametrize(
    ("cached_input", "dollars"), [(None, 10 * MILLION), (2, 6 * 10 + 4 * 2), (0, 60), (10, 100), (2.5, 70)]
)
def test_cached_input_has_its_own_price(cached_input: float | None, dollars: float) -> None:
    """Cached tokens are part of the input, at their own price where there is one; free is a price."""
    usage = Usage(10 * MILLION, 0, cached_tokens=4 * MILLION)
    price = Price(MILLION if cached_input is None else 10, 0, cached_input)
    assert cost_of(usage, "m", "", {"m": price}) == pytest.approx(dollars)


# --- the price --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "deployment", "dollars"),
    [
        ("o3-pro", "mine", 100),
        ("o3-pro-2025-06-10", "mine", 100),
        ("gpt-5-pro-2025-10-06", "o3-pro", 135),
        ("gpt-5.2-pro", "mine", 189),
        ("gpt-5.4-pro-2026-03-05", "mine", 210),
        ("gpt-5.5-pro", "mine", 210),
        (None, "o3-pro", 100),
        ("", "o3-pro-2025-06-10", 100),
        ("emulator:o3-pro", "o3-pro", 100),
    ],
)
def test_model_names_its_price_and_else_the_deployment(model: str | None, deployment: str, dollars: float) -> None:
    """The model has its price under its name, with or without a version; where it has none, the deployment may."""
    assert cost(model, deployment) == dollars


@pytest.mark.parametrize(
    "name",
    [
        *("", "-", "-2025-06-10", "o3", "o3-2025-04-16", "o3-mini", "gpt-5", "gpt-5-2025-08-07", "gpt-5-mini"),
        *("o3-pro-", "o3-pro-eu", "o3-pro2", "my-o3-pro", "O3-PRO", "gpt-5.6-sol", "gpt-5.4", "gpt-5-pro.1", "質問"),
    ],
)
def test_what_is_not_in_the_table_has_no_cost(name: str) -> None:
    """A name that is like one of the table is another name: no cost is better than a wrong one."""
    assert cost(name, name) is None


@pytest.mark.parametrize(
    ("name", "dollars"),
    [
        ("gpt-5", 3),
        ("gpt-5-2025-08-07", 3),
        ("gpt-5-pro", 135),
        ("gpt-5-pro-2025-10-06", 135),
        ("gpt-5-mini", None),
        ("gpt-5-2", None),
        ("gpt-5.2", None),
        ("gpt-50", None),
    ],
)
def test_a_key_stands_for_its_versions_alone(name: str, dollars: float | None) -> None:
    """A price for gpt-5 is one for its versions, and none for gpt-5-pro, gpt-5-mini or gpt-5.2."""
    assert cost(name, prices={"gpt-5": TINY}) == cost(None, name, {"gpt-5": TINY}) == dollars


def test_the_longest_key_wins() -> None:
    """A price for one version goes before that of its model, wherever in the table it stands."""
    one, other = Price(1, 0), Price(2, 0)
    for prices in ({"m": one, "m-2026-01-01": other}, {"m-2026-01-01": other, "m": one}):
        assert cost("m-2026-01-01", prices=prices) == 2
        assert cost("m-2026-02-02", prices=prices) == 1


def test_the_prices_of_the_user_go_first() -> None:
    """A user's price, be it for the model or for the deployment alone, goes before the table's."""
    assert cost("o3-pro-2025-06-10", prices={"o3-pro": TINY}) == 3
    assert cost("o3-pro-2025-06-10", "contract", {"contract": TINY}) == 3
    assert cost("o3-pro-2025-06-10", "contract", {"other": TINY}) == 100
    assert cost("my-model", "contract", {"contract": Price(0, 0), "my-model": TINY}) == 3


# --- odd figures ------------------------------------------------------------------------------------------------


def test_no_usage_has_no_cost() -> None:
    """Where the service told no usage, nothing is known of the cost; a usage of nothing costs nothing."""
    assert cost_of(None, "o3-pro", "o3-pro", {}) is None
    assert cost_of(Usage(0, 0), "o3-pro", "o3-pro", {}) == 0


@pytest.mark.parametrize(
    "usage",
    [
        Usage(-1, 0),
        Usage(0, -1),
        Usage(5, 0, cached_tokens=-1),
        Usage(5, 0, cached_tokens=6),
        Usage(10**400, 0),
        Usage(10**307, 10**307),
    ],
    ids=str,
)
def test_odd_figures_have_no_cost(usage: Usage) -> None:
    """Tokens that cannot be, or more than a number can hold, have no cost, and raise nothing."""
    assert cost_of(usage, "m", "", {"m": Price(10.0, 80.0, 5.0)}) is None


@pytest.mark.parametrize("figure", [-1, -0.01, math.nan, math.inf, -math.inf, 10**400])
@pytest.mark.parametrize("name", ["input", "output", "cached_input"])
def test_a_price_is_a_finite_figure(name: str, figure: float) -> None:
    """A negative price, or one that is no finite number, is refused where it is written."""
    figures: dict[str, Any] = {"input": 1, "output": 1, name: figure}
    with pytest.raises(ValueError, match="Price takes finite figures"):
        Price(**figures)


def test_the_table_cannot_be_changed() -> None:
    """The built-in table is one for all handlers, and stays as it is, and so does each of its prices."""
    table: Any = PRICES
    with pytest.raises(TypeError):
        table["o3-pro"] = TINY
    with pytest.raises(dataclasses.FrozenInstanceError):
        table["o3-pro"].input = 1
