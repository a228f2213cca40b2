"""The specification's sentences stand byte for byte, and both languages say the same things."""

from __future__ import annotations

import string

import pytest

from o3pro_bg._sentences import EN, JA, Language, explain, say, shown

SPECIFIED = {
    "not_found": "ジョブが見つかりません: {job_id}",
    "not_finished": "ジョブはまだ完了していません",
    "api_error": "API Error: {detail}",
    "cancelled": "ジョブはキャンセルされました",
    "already_finished": "ジョブは既に終了しています",
}


def blanks(sentence: str) -> set[str]:
    """Answer the names of a sentence's blanks."""
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


@pytest.mark.parametrize("key", SPECIFIED)
def test_specified_sentences_are_byte_exact(key: str) -> None:
    """What the specification prints in Japanese is what we print, byte for byte."""
    assert JA[key].encode() == SPECIFIED[key].encode()


def test_languages_have_the_same_keys() -> None:
    """Whatever can be said in one language can be said in the other."""
    assert set(JA) == set(EN)


@pytest.mark.parametrize("key", JA)
def test_languages_have_the_same_blanks(key: str) -> None:
    """A sentence names the same facts in both languages."""
    assert blanks(JA[key]) == blanks(EN[key])


@pytest.mark.parametrize("key", [key for key in JA if key != "api_error"])
def test_each_sentence_is_in_its_language(key: str) -> None:
    """The Japanese sentences are Japanese, the English ones plain ASCII."""
    assert not JA[key].isascii()
    assert EN[key].isascii()


def test_say_fills_blanks_and_trusts_no_value() -> None:
    """A value that looks like a blank is text."""
    assert say("ja", "not_found", job_id="{job_id}") == "ジョブが見つかりません: {job_id}"


@pytest.mark.parametrize(
    ("thing", "line"),
    [
        ("x" * 200, "x" * 200),
        ("質問", "質問"),
        ("x" * 201, f"'{'x' * 200}' ..."),
        ("a\nb", "'a\\nb' ..."),
        ("\ud800", "'\\ud800' ..."),
        (None, "None"),
        (b"a", "b'a'"),
    ],
)
def test_what_is_shown_is_one_line(thing: object, line: str) -> None:
    """What somebody gave as an id is repeated as it is where it is short and printable, else in part and escaped."""
    assert shown(thing) == line


@pytest.mark.parametrize(
    ("language", "code", "detail", "sentence"),
    [
        ("ja", "forbidden", "", JA["failure.forbidden"]),
        ("en", "forbidden", "HTTP 403", f"{EN['failure.forbidden']} (HTTP 403)"),
        ("en", "rate_limit_exceeded", "slow down", "rate_limit_exceeded: slow down"),
        ("ja", "server_error", "", "server_error"),
    ],
)
def test_explain_says_ours_and_theirs(language: Language, code: str, detail: str, sentence: str) -> None:
    """A cause with a sentence of ours gets it, any other its code; what the service said stands beside it."""
    assert explain(language, code, detail) == sentence
