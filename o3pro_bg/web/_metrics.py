"""Figures for Prometheus, where its client is installed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from starlette.responses import Response

from o3pro_bg._states import JobStatus
from o3pro_bg.web._api import desk_of
from o3pro_bg.web._wire import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import GaugeMetricFamily
    from starlette.requests import Request

    from o3pro_bg.web._desk import Desk


async def metrics(request: Request) -> Response:
    """Answer the figures of the jobs that are held, in Prometheus's text format."""
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    except ImportError:
        raise Refusal(404, "no_metrics") from None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Jobs(desk_of(request)))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Jobs:
    """Collects the figures of a desk's jobs."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Answer each figure."""
        from prometheus_client.core import GaugeMetricFamily

        records = self._desk.records()
        held = GaugeMetricFamily("o3pro_bg_jobs", "Jobs that are held, by status.", labels=["status"])
        statuses = Counter(record.status for record in records)
        for status in JobStatus:
            held.add_metric([status.value], statuses[status])
        yield held
        waiting = GaugeMetricFamily("o3pro_bg_jobs_waiting", "Jobs that wait, by reason.", labels=["reason"])
        for reason, count in Counter(record.waiting for record in records if record.waiting).items():
            waiting.add_metric([reason], count)
        yield waiting
        tokens = GaugeMetricFamily("o3pro_bg_tokens", "Tokens billed for the jobs that are held.", labels=["kind"])
        usages = [record.usage for record in records if record.usage is not None]
        tokens.add_metric(["input"], sum(usage.input_tokens for usage in usages))
        tokens.add_metric(["output"], sum(usage.output_tokens for usage in usages))
        yield tokens
        yield GaugeMetricFamily("o3pro_bg_event_streams", "Event streams that are open.", value=self._desk.feed.streams)
