"""The watcher's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from producers.status import Status

PREFIX = "image_search_watcher"


class StatusCollector(Collector):
    """Reads the status of each source when scraped; the main folder is source `main`."""

    def __init__(self, statuses: Callable[[], Mapping[str, Status]]) -> None:
        self._statuses = statuses

    def collect(self) -> Iterator[Metric]:
        """One metric family per figure, labelled by source."""
        statuses = {name or "main": status for name, status in self._statuses().items()}
        for name, text, value in _GAUGES:
            gauge = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["source"])
            for source, status in statuses.items():
                if (figure := value(status)) is not None:
                    gauge.add_metric([source], figure)
            yield gauge
        for name, text, value in _COUNTERS:
            counter = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=["source"])
            for source, status in statuses.items():
                counter.add_metric([source], value(status))
            yield counter


def registry(statuses: Callable[[], Mapping[str, Status]]) -> CollectorRegistry:
    """A registry that holds only this collector."""
    found = CollectorRegistry()
    found.register(StatusCollector(statuses))
    return found


_Count = tuple[str, str, Callable[[Status], float]]
_Figure = tuple[str, str, Callable[[Status], float | None]]
"""The value is None if it is not known; the metric is then absent."""

_GAUGES: tuple[_Figure, ...] = (
    ("known_pictures", "Pictures that were published and not removed since", lambda s: s.known()),
    ("waiting_paths", "Paths that wait to be examined or published", lambda s: s.waiting),
    ("held_removals", "Removals that are held back until they are confirmed", lambda s: s.held),
    (
        "unreadable_files",
        "Files that exist but cannot be read",
        lambda s: len(s.counters.unreadable),
    ),
    (
        "passed_over",
        "Skipped files and folders: not pictures, or ignored",
        lambda s: sum(s.skipped.counts().values()),
    ),
    (
        "source_missing",
        "1 if the folder or bucket cannot be reached, else 0",
        lambda s: bool(s.root_missing or s.unreachable),
    ),
    (
        "poll_interval_seconds",
        "Seconds between scans; 0 with the kernel's notifications",
        lambda s: s.poll_seconds,
    ),
    (
        "last_reconcile_timestamp_seconds",
        "Time of the last complete scan; absent before the first one",
        lambda s: s.last_reconcile.timestamp() if s.last_reconcile else None,
    ),
)
_COUNTERS: tuple[_Count, ...] = (
    ("published", "Published additions and changes", lambda s: s.counters.added),
    ("removed", "Published removals", lambda s: s.counters.removed),
    ("refused", "Refused files, each with a dead letter", lambda s: s.counters.refused),
    ("unchanged", "Files with a new time but unchanged content", lambda s: s.counters.unchanged),
    ("dropped_event_bursts", "Overflows of the kernel's event queue", lambda s: s.overflows),
)
