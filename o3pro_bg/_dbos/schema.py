"""
The tables of the jobs.

They are those of the store on disk (`_sqlite/jobfile`), and mean the same. `jobs.due_at` is when a job has to have
ended, by the database's clock; `jobs.is_sent` tells, of one that nobody holds, that the service may have it;
`jobs.first_epoch` is that in which it was dealt first. `pace` is where the creates of a deployment stand.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from o3pro_bg._dbos.pace import pace_table

VERSION: Final = 1
"""The version of these tables; workers of another one have to be told from ours."""

_BIG: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")


class Schema:
    """
    The tables, of which `meta` has one row.

    Args:
        schema: The PostgreSQL schema that they are in; SQLite has none.
    """

    def __init__(self, schema: str | None) -> None:
        self.metadata = metadata = sa.MetaData(schema=schema)
        self.meta = sa.Table(
            "o3pro_meta",
            metadata,
            sa.Column("one", sa.Integer, primary_key=True),
            sa.Column("version", sa.Integer, nullable=False),
            sa.Column("seq", _BIG, nullable=False),
            sa.Column("removals", _BIG, nullable=False),
        )
        self.jobs = sa.Table(
            "o3pro_jobs",
            metadata,
            sa.Column("number", _BIG, primary_key=True, autoincrement=True),
            sa.Column("job_id", sa.Text, nullable=False, unique=True),
            sa.Column("endpoint", sa.Text, nullable=False),
            sa.Column("dedupe", sa.Text),
            sa.Column("state", sa.Text, nullable=False),
            sa.Column("state_crc", _BIG, nullable=False),
            sa.Column("ended", sa.SmallInteger, nullable=False),
            sa.Column("cancel_requested_at", sa.Double),
            sa.Column("due_at", sa.Double),
            sa.Column("is_sent", sa.SmallInteger, nullable=False, server_default="0"),
            sa.Column("first_epoch", _BIG, nullable=False),
            sa.Column("owner", sa.Text),
            sa.Column("epoch", _BIG, nullable=False),
            sa.Column("seq", _BIG, nullable=False, index=True),
            sa.UniqueConstraint("endpoint", "dedupe"),
            sa.Index(
                "o3pro_jobs_by_owner", "owner", sqlite_where=sa.text("ended = 0"), postgresql_where=sa.text("ended = 0")
            ),
        )
        self.requests = sa.Table(
            "o3pro_requests",
            metadata,
            sa.Column("number", _BIG, primary_key=True, autoincrement=False),
            sa.Column("request", sa.Text, nullable=False),
            sa.Column("request_crc", _BIG, nullable=False),
        )
        self.owners = sa.Table(
            "o3pro_owners",
            metadata,
            sa.Column("owner", sa.Text, primary_key=True),
            sa.Column("beat", _BIG, nullable=False),
            sa.Column("pace", sa.Double, nullable=False),
        )
        pace_table(metadata)
