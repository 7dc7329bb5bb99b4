"""No notification from the kernel ends the thread that receives it."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from watchdog.events import FileSystemEvent

from producers.folder.notifications import EVENTS, Changes, Mailbox
from producers.rules import Rules

ROOT = Path("/pictures")
INSIDE = st.text(st.sampled_from("/.~#a\N{LATIN SMALL LETTER E WITH ACUTE}\n"), max_size=6)
PATHS = st.one_of(
    st.just(str(ROOT)), st.just("/elsewhere/a.jpg"), INSIDE.map(lambda path: f"{ROOT}/{path}")
)


def take(*events: FileSystemEvent) -> Changes:
    """What a watcher learns from these events."""

    async def collect() -> Changes:
        mailbox = Mailbox(ROOT, asyncio.get_running_loop(), Rules)
        for event in events:
            mailbox.dispatch(event)
        return await asyncio.wait_for(mailbox.changes(), 1)

    return asyncio.run(collect())


@pytest.mark.slow
@given(kind=st.sampled_from(EVENTS), source=PATHS, target=PATHS)
def test_no_notification_ends_the_thread_that_delivers_it(
    kind: type[FileSystemEvent], source: str, target: str
) -> None:
    event = kind(source.encode(), target.encode() if "Moved" in kind.__name__ else b"")
    mark = EVENTS[0](f"{ROOT}/mark.jpg")
    assert "mark.jpg" in take(event, mark).files


@pytest.mark.parametrize("kind", EVENTS)
def test_the_root_itself_is_a_folder_to_compare(kind: type[FileSystemEvent]) -> None:
    changes = take(kind(str(ROOT)))
    assert changes.folders == {""}
    assert not changes.files
    assert not changes.skipped
