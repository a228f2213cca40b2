"""
The exceptions of o3pro_bg: whose fault it is, and the way back.

The five verbs of the specification answer with dictionaries and raise none of these. The typed handle
(`Job`, `AsyncJob`), `submit` and `attach` raise them::

    O3ProError
    ├── ConfigError            the configuration does not make a working client
    ├── InvalidRequest         an argument that no service could take (also a ValueError)
    ├── JobNotFound            no such job in this handler (also a LookupError)
    ├── JobNotFinished         the job has to end, or to be accepted, first
    ├── JobFailed              the service, or the way to it, failed the job
    │   ├── SubmissionUncertain   the request may have been accepted; it is not sent again
    │   ├── JobLost               the service no longer has the response
    │   └── DeadlineExceeded      the job's own `timeout` passed; at the service it is cancelled
    ├── JobCancelled           somebody cancelled it
    ├── HandlerClosed          the handler was closed while, or before, it was asked
    ├── StoreError             the file that keeps the jobs cannot be opened, read or written
    └── WrongThread            a waiting call was made where it could only wait for itself

A wait that runs out of time raises the built-in `TimeoutError` and leaves the job alone.
"""

from __future__ import annotations


class O3ProError(Exception):
    """
    The root of this library's exceptions.

    Attributes:
        job_id: The job concerned, ours, or None.
        response_id: The service's id of its response, or None if it gave none.
        request_id: The service's id of the HTTP request, for a support ticket, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        job_id: str | None = None,
        response_id: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.response_id = response_id
        self.request_id = request_id


class ConfigError(O3ProError):
    """The configuration does not make a working client; the message lists every problem and its mend."""


class InvalidRequest(O3ProError, ValueError):
    """An argument that no service could take: nothing was sent and no job exists."""


class JobNotFound(O3ProError, LookupError):
    """The handler holds no job with this id: it was removed, or belongs to another handler."""


class JobNotFinished(O3ProError):
    """What was asked for exists only after the job has ended, or after the service has accepted it."""


class JobFailed(O3ProError):
    """
    The job ended without its answer.

    Attributes:
        code: The cause in one word: the service's own error code, or one of this library's.
        detail: What the service said, or an empty string.
        partial: The text that was generated before it failed, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        detail: str = "",
        partial: str | None = None,
        job_id: str | None = None,
        response_id: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, job_id=job_id, response_id=response_id, request_id=request_id)
        self.code = code
        self.detail = detail
        self.partial = partial


class SubmissionUncertain(JobFailed):
    """The request may or may not have been accepted; sending it again could pay for it twice."""


class JobLost(JobFailed):
    """The service no longer has, or no longer gives out, the response."""


class DeadlineExceeded(JobFailed):
    """The job's own `timeout` passed before its answer came; what runs at the service is cancelled."""


class JobCancelled(O3ProError):
    """The job was cancelled."""


class HandlerClosed(O3ProError):
    """The handler is closed: make a new one."""


class StoreError(O3ProError):
    """The file that keeps the jobs cannot be opened, read or written; the message says why, and what to do."""


class WrongThread(O3ProError, RuntimeError):
    """A waiting call was made on the thread or event loop that would have to do the work."""
