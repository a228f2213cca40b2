"""The exceptions form the tree that their module draws, and carry the way back."""

from __future__ import annotations

import pickle
import re

import pytest

import o3pro_bg
from o3pro_bg import errors
from o3pro_bg.errors import JobFailed, O3ProError

TREE = {
    "O3ProError": (Exception,),
    "ConfigError": (O3ProError,),
    "InvalidRequest": (O3ProError, ValueError),
    "JobNotFound": (O3ProError, LookupError),
    "JobNotFinished": (O3ProError,),
    "JobFailed": (O3ProError,),
    "SubmissionUncertain": (JobFailed,),
    "JobLost": (JobFailed,),
    "DeadlineExceeded": (JobFailed,),
    "JobCancelled": (O3ProError,),
    "HandlerClosed": (O3ProError,),
    "StoreError": (O3ProError,),
    "WrongThread": (O3ProError, RuntimeError),
}
FAILURES = [errors.JobFailed, errors.SubmissionUncertain, errors.JobLost, errors.DeadlineExceeded]


def test_tree_is_complete() -> None:
    """The module has the exceptions of the tree, all of them public, and draws each in its docstring."""
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert kinds == set(TREE) == kinds & set(o3pro_bg.__all__)
    drawn = re.findall(r"^ +[│├└─ ]*([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    assert drawn == list(TREE)


@pytest.mark.parametrize("name", TREE)
def test_each_exception_stands_in_its_place(name: str) -> None:
    """Each exception is a child of what the tree says, the built-in ones included."""
    assert getattr(errors, name).__bases__ == TREE[name]


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in TREE if getattr(errors, name) not in FAILURES])
def test_exceptions_carry_the_way_back(kind: type[O3ProError]) -> None:
    """Every exception carries the job's id, the response's and the request's; without them they are None."""
    error = kind("a sentence", job_id="job-1", response_id="resp_1", request_id="req-1")
    assert (str(error), error.job_id, error.response_id, error.request_id) == (
        "a sentence",
        "job-1",
        "resp_1",
        "req-1",
    )
    bare = kind("a sentence")
    assert (bare.job_id, bare.response_id, bare.request_id) == (None, None, None)


@pytest.mark.parametrize("kind", FAILURES)
def test_failures_carry_cause_and_partial_text(kind: type[JobFailed]) -> None:
    """A failure carries its code, what the service said, and the text that was generated before."""
    error = kind("it broke", code="c", detail="d", partial="half", job_id="j", response_id="r", request_id="q")
    assert (error.code, error.detail, error.partial) == ("c", "d", "half")
    assert (error.job_id, error.response_id, error.request_id) == ("j", "r", "q")
    assert "half" not in str(error) + repr(error)
    assert (kind("it broke", code="c").detail, kind("it broke", code="c").partial) == ("", None)


@pytest.mark.parametrize("kind", [errors.JobFailed, errors.SubmissionUncertain, errors.JobLost, errors.JobCancelled])
def test_errors_travel_between_processes(kind: type[errors.O3ProError]) -> None:
    """An exception that is pickled and unpickled still carries the way back."""
    error = kind("it broke", job_id="job", response_id="resp_1")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(copy), str(copy), vars(copy)) == (kind, "it broke", vars(error))
