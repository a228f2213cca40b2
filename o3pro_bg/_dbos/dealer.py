"""
How jobs are dealt out: the queue of DBOS, and one workflow for each time that a job is to be held by somebody.

The workflow's id is the job's and the epoch's; its arguments are these two and no more: no question, no answer.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from dbos import DBOSClient, EnqueueOptions, WorkflowSerializationFormat

if TYPE_CHECKING:
    from collections.abc import Collection

    from o3pro_bg._dbos.database import Database
    from o3pro_bg._records import JobRecord

WORKFLOW: Final = "o3pro_bg.live"
"""The name under which DBOS knows what lives a job."""

_UNDER_WAY: Final = "PENDING"  # to DBOS
_DEALT: Final = ("ENQUEUED", "DELAYED", _UNDER_WAY)
_NOBODY: Final = "o3pro-bg/queues"  # whose our queues are: no application has this name, so none polls them by itself
_TABLES: Final = ("workflow_status", "workflow_input", "workflow_output", "operation_outputs")
_MIDDLE: Final = 2**30  # of the priorities of DBOS, of which the smallest goes first
_FIRST: Final = 1


def queue_of(endpoint: str) -> str:
    """Answer the queue of a service's jobs: only who can live them listens to it."""
    return f"o3pro_bg-{hashlib.sha256(endpoint.encode()).hexdigest()[:16]}"


class Dealer:
    """
    Puts jobs into the queues, and tidies up behind those who died.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._client = DBOSClient(
            system_database_engine=database.engine,
            dbos_system_schema=database.dbos_schema,
            lazy=True,
            retry_connection_errors=False,
        )
        self._queues = sa.table("queues", sa.column("name"), sa.column("concurrency"), schema=database.schema)
        self._workflows, *self._payloads = [
            sa.table(name, sa.column("workflow_uuid"), sa.column("status"), schema=database.schema) for name in _TABLES
        ]

    def open_queue(self, endpoint: str, *, most: int | None, at_hand: int, poll: float) -> None:
        """
        Make a service's queue, or change its bounds: who comes last is right.

        Args:
            endpoint: The service.
            most: The most jobs under way at once, on all hosts together, or None.
            at_hand: The most that one process has.
            poll: Seconds between two looks whether a job waits.
        """
        self._client.register_queue(
            queue_of(endpoint),
            global_concurrency=most,
            worker_concurrency=at_hand if most is None else min(at_hand, most),
            polling_interval_sec=poll,
            application_name=_NOBODY,
        )

    def deal(self, connection: sa.Connection, record: JobRecord, epoch: int, *, is_urgent: bool) -> None:
        """
        Have the job held by somebody in this epoch, if the transaction of this connection is committed.

        What is urgent, because the service may have it already, goes before all that waits to be sent.
        """
        request = record.request
        options: EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "queue_name": queue_of(request.endpoint),
            "workflow_id": f"{record.job_id}.{epoch}",
            "priority": _FIRST if is_urgent else _MIDDLE - max(1 - _MIDDLE, min(request.priority, _MIDDLE - 2)),
            "serialization_type": WorkflowSerializationFormat.PORTABLE,  # JSON, whatever the application uses
        }
        self._client.enqueue_in_transaction(connection, options, record.job_id, epoch, queue_of(request.endpoint))

    def has_dealt(self, job_id: str, epoch: int, connection: sa.Connection) -> bool:
        """Tell whether the job was ever dealt in this epoch; that outlives the job's row."""
        its_id = self._workflows.c.workflow_uuid
        found = connection.execute(sa.select(its_id).where(its_id == f"{job_id}.{epoch}"))
        return found.first() is not None

    def is_dealt(self, job_id: sa.ColumnElement[str], epoch: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        """Answer the SQL of whether a job waits in a queue, or is under way, in this epoch."""
        workflow = self._workflows.c
        which = workflow.workflow_uuid == job_id + "." + sa.cast(epoch, sa.Text)
        return sa.exists().where(which, workflow.status.in_(_DEALT))

    def most_of(self, connection: sa.Connection, endpoint: str) -> int | None:
        """Answer the most jobs of this service that may be under way at once, as DBOS knows it, or None."""
        which = self._queues.c.name == queue_of(endpoint)
        most: int | None = connection.execute(sa.select(self._queues.c.concurrency).where(which)).scalar()
        return most

    def under_way(self) -> list[tuple[str, int]]:
        """Answer the jobs, with their epochs, that some process was dealt, and that it has not ended there."""
        found = self._client.list_workflows(name=WORKFLOW, status=_UNDER_WAY, load_input=False, load_output=False)
        pairs = [workflow.workflow_id.rpartition(".") for workflow in found]
        return [(job_id, int(epoch)) for job_id, _, epoch in pairs if epoch.isdigit()]

    def call_off(self, pairs: Collection[tuple[str, int]]) -> None:
        """Have workflows, named by their jobs and epochs, take up no place any more."""
        if pairs:
            self._client.cancel_workflows([f"{job_id}.{epoch}" for job_id, epoch in pairs])

    def forget(self, connection: sa.Connection, job_id: str, epochs: range) -> None:
        """Remove the workflows of a job in these epochs, but for one under way: that is called off first."""
        its_id = self._workflows.c.workflow_uuid
        which = its_id.in_([f"{job_id}.{number}" for number in epochs])
        is_idle = self._workflows.c.status != _UNDER_WAY
        gone = connection.execute(sa.delete(self._workflows).where(which, is_idle).returning(its_id)).scalars().all()
        for payload in self._payloads:
            connection.execute(sa.delete(payload).where(payload.c.workflow_uuid.in_(gone)))

    def close(self) -> None:
        """Let go of the database."""
        self._client.destroy()
