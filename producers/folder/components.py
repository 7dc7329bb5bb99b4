"""Builds and connects the objects that scan one folder and publish its changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from adapters.helper_processes import HelperPool
from adapters.log.port import EventLog
from producers.events import EventFactory
from producers.folder.examination import ParallelExaminer
from producers.folder.hashing import Examiner
from producers.folder.mount_points import MountPoints
from producers.folder.pipeline import ChangePipeline
from producers.folder.reconcile import Reconciler
from producers.folder.settling import Settling
from producers.guard import RemovalGuards
from producers.log.known_images import KnownImages
from producers.log.refused_files import RefusalReporter
from producers.log.writer import ChangeWriter
from producers.rules import Rules
from producers.settings import WatcherSettings
from producers.skipped import SkippedFiles


@dataclass(frozen=True, slots=True)
class FolderComponents:
    """The reconciler, the pipeline and the log writer of one folder."""

    reconciler: Reconciler
    pipeline: ChangePipeline
    writer: ChangeWriter


def build_components(
    settings: WatcherSettings,
    log: EventLog,
    helpers: HelperPool,
    root: Path,
    event_factory: EventFactory,
    state: KnownImages,
    *,
    guard: RemovalGuards,
    rules: Callable[[], Rules],
    removable: Callable[[], Awaitable[bool]],
    mounts: MountPoints,
    skipped: SkippedFiles,
) -> FolderComponents:
    """The parts for one folder. `rules` is called whenever the present rules are needed."""
    refusals = RefusalReporter(log)
    writer = ChangeWriter(log, lambda key, reason: refusals.report(key, "Rejected", reason))
    examiner = Examiner(
        root,
        event_factory,
        follow=settings.follow_symlinks,
        max_bytes=settings.max_image_bytes,
    )
    pipeline = ChangePipeline(
        state=state,
        rules=rules,
        examiner=ParallelExaminer(examiner, helpers),
        writer=writer,
        refusals=refusals,
        guard=guard,
        settling=Settling(max(settings.quiet_seconds, settings.poll_seconds)),
        id_prefix=event_factory.id_prefix,
        removable=removable,
        mounts=mounts,
        skipped=skipped,
    )
    reconciler = Reconciler(
        root,
        state,
        submit=pipeline.submit,
        touch=lambda path, seen: pipeline.touched(path, seen=seen),
        follow=settings.follow_symlinks,
        mounts=mounts,
        always_twice=settings.poll_seconds > 0,
        skipped=skipped,
    )
    return FolderComponents(reconciler, pipeline, writer)
