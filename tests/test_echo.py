"""What others repeat of a question is taken out of what they say; what they say of their own stays."""

from __future__ import annotations

import json

import pytest

from o3pro_bg._echo import without_texts

QUESTION = "Where does the canary sing, and\n“why” does it do so in the mine?"
OPTION = "Answer in rhyme, please, as a canary would."


@pytest.mark.parametrize(
    "said",
    [
        f"no: {QUESTION} is not allowed",
        f"no: {QUESTION[:27]}",
        f"no: {QUESTION[-27:]}...",
        f"no: {QUESTION[10:40]} (and so on)",
        f"no: {json.dumps(QUESTION)[1:]}",
        f"no: {json.dumps(QUESTION, ensure_ascii=False)[1:]}",
        f"no: {' '.join(QUESTION.split())}",
        f"no: {OPTION}",
        f"no: {OPTION[3:33]}, {QUESTION}",
    ],
)
def test_what_is_repeated_is_taken_out(said: str) -> None:
    """From where it begins to repeat a text, in whatever writing, nothing of what was said is left."""
    assert without_texts(said, QUESTION, {"tools": [{"deep": [OPTION]}]}) == "no: [the question]"


@pytest.mark.parametrize("is_ascii", [False, True])
def test_what_json_writes_throughout_in_its_own_way_is_taken_out(is_ascii: bool) -> None:
    """A question of which no part is left as it was, be it for its quotes or for its letters, is known by its JSON."""
    question = '"歌" "鳥" "鉱" "山" "空" "海" "川" "森"'
    said = f"no: {json.dumps(question, ensure_ascii=is_ascii)[1:-1]}"
    assert without_texts(said, question, {}) == "no: [the question]"


@pytest.mark.parametrize("start", range(40))
def test_a_part_is_found_wherever_it_stands(start: int) -> None:
    """Any 27 characters in a row are found, after however many of the service's own."""
    assert without_texts("!" * start + QUESTION[5:32], QUESTION, {}) == "!" * start + "[the question]"


@pytest.mark.parametrize("question", ["twelve chars", "  twelve chars\n"])
def test_a_short_question_is_found_as_a_whole(question: str) -> None:
    """A question of 12 characters is known by all of them."""
    assert without_texts("no: twelve chars", question, {}) == "no: [the question]"
    assert without_texts("no: twelve char", question, {}) == "no: twelve char"


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ("The response was filtered.", "The response was"[:11]),
        ("The response was filtered.", "Why was the response filtered so often last week?"),
        ("", QUESTION),
        ("max_output_tokens is too large", "q"),
        (QUESTION[:23], QUESTION),
    ],
)
def test_what_is_said_of_its_own_stays(said: str, question: str) -> None:
    """A few words in common are no repetition, nor is a short text among the options."""
    assert without_texts(said, question, {"max_output_tokens": 5, "user": "max_output_tokens"}) == said


def test_no_more_than_the_beginning_of_a_long_text_is_searched() -> None:
    """Of a text of megabytes the first 100,000 characters are known."""
    long, end = "x y " * 25_000, "the end of it, which is far away"
    assert without_texts(end, f"{long}{end}", {}) == end
    assert without_texts(end, f"{end}{long}", {}) == "[the question]"
