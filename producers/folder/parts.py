"""The parts that look at one folder's files and publish what is found, joined to one another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from adapters.log.port import EventLog
from producers.events import Announcer
from producers.folder.examination import Examination
from producers.folder.hashing import Examiner
from producers.folder.mount_points import MountPoints
from producers.folder.pipeline import Pipeline
from producers.folder.reconcile import Reconciler
from producers.folder.settling import Settling
from producers.guard import Guards
from producers.helper_processes import Helpers
from producers.known_images import State
from producers.log_writer import Writer
from producers.refused_files import DeadLetters
from producers.rules import Rules
from producers.settings import WatcherSettings
from producers.skipped import Passed


@dataclass(frozen=True, slots=True)
class Parts:
    """What compares a folder, what decides and publishes, and what writes to the log."""

    reconciler: Reconciler
    pipeline: Pipeline
    writer: Writer


def joined(
    settings: WatcherSettings,
    log: EventLog,
    helpers: Helpers,
    root: Path,
    announcer: Announcer,
    state: State,
    *,
    guard: Guards,
    rules: Callable[[], Rules],
    removable: Callable[[], Awaitable[bool]],
    mounts: MountPoints,
    passed: Passed,
) -> Parts:
    """The parts for one folder, whose present rules and mounts are asked for each time."""
    dead_letters = DeadLetters(log)
    writer = Writer(log, lambda key, reason: dead_letters.report(key, "Rejected", reason))
    examiner = Examiner(
        root,
        announcer,
        follow=settings.follow_symlinks,
        max_bytes=settings.max_image_bytes,
    )
    pipeline = Pipeline(
        state=state,
        rules=rules,
        examination=Examination(examiner, helpers),
        writer=writer,
        dead_letters=dead_letters,
        guard=guard,
        settling=Settling(max(settings.quiet_seconds, settings.poll_seconds)),
        id_prefix=announcer.id_prefix,
        removable=removable,
        mounts=mounts,
        passed=passed,
    )
    reconciler = Reconciler(
        root,
        state,
        submit=pipeline.submit,
        touch=lambda image_id, seen: pipeline.touched(image_id, seen=seen),
        follow=settings.follow_symlinks,
        mounts=mounts,
        always_twice=settings.poll_seconds > 0,
        passed=passed,
    )
    return Parts(reconciler, pipeline, writer)
