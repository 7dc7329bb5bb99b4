"""After a topic has lost its end, a letter is not mistaken for that of another record."""

import pytest

from adapters.bootstrap import Connections
from adapters.embedder.fake import FakeEmbedder
from adapters.embedder.spec import ModelSpec
from adapters.index.fake import FakeImageIndex
from adapters.log.dead_letter_reader import Letter, OpenLetters, read_letters, settling
from adapters.log.fake import FakeEventLog, FakeGroupAdmin
from adapters.log.port import LogRecord, Message, Position
from cli.models_completeness import check_complete
from consumers.indexing.failures import Poison
from consumers.repair.audit import audit, repair
from consumers.repair.dead_letters import open_letters, retry
from gateway.state import open_dead_letters as of_the_gateway
from schemas.events import DeadLetter
from schemas.topics import IMAGES, IMAGES_DLQ, Topic
from stack.errors import StackError
from tests.unit.consumers.test_audit import added, everything


@pytest.fixture
def log() -> FakeEventLog:
    """With one partition for each topic, so that offsets are predictable."""
    return FakeEventLog(topics={IMAGES.name: [[]], IMAGES_DLQ.name: [[]]})


async def publish(log: FakeEventLog, image_id: str, sha256: str) -> LogRecord:
    await log.publish(IMAGES, [Message(image_id, added(image_id, sha256))])
    return log.topics[IMAGES.name][0][-1]


async def refuse(log: FakeEventLog, record: LogRecord) -> None:
    assert record.key is not None
    poison = Poison(record, record.key.decode(), "Rejected", "no picture")
    await log.publish(IMAGES_DLQ, [poison.message(IMAGES.name, "small")])


def lose_the_last(log: FakeEventLog, topic: Topic) -> None:
    del log.topics[topic.name][0][-1]


@pytest.mark.parametrize(
    ("image_id", "sha256"), [("good.png", "b"), ("bad.png", "b")], ids=["another", "a new version"]
)
async def test_a_dead_letter_does_not_count_for_another_record_at_its_offset(
    log: FakeEventLog, small_spec: ModelSpec, image_id: str, sha256: str
) -> None:
    bad = await publish(log, "bad.png", "a")
    await refuse(log, bad)
    lose_the_last(log, IMAGES)
    good = await publish(log, image_id, sha256)
    assert good.position == bad.position
    index = FakeImageIndex()
    collection = await index.ensure_collection(small_spec)
    result = await audit(log, index, collection, everything)
    assert (result.missing, result.dead_lettered) == ([image_id], [])
    with pytest.raises(StackError, match=image_id):
        await check_complete(
            Connections(FakeEmbedder(), index, log, FakeGroupAdmin(log=log)),
            collection,
            {0: 1},
            0.0,
        )
    assert await repair(log, result) == 1
    assert log.topics[IMAGES.name][0][-1].value == good.value


@pytest.mark.parametrize("limit", [10**6, 20], ids=["the whole record", "its beginning"])
async def test_a_dead_letter_counts_for_its_own_record(
    log: FakeEventLog, small_spec: ModelSpec, limit: int
) -> None:
    bad = await publish(log, "bad.png", "a")
    letter = Poison(bad, "bad.png", "Rejected", "no").message(IMAGES.name, "small", limit)
    await log.publish(IMAGES_DLQ, [letter])
    index = FakeImageIndex()
    collection = await index.ensure_collection(small_spec)
    result = await audit(log, index, collection, everything)
    assert (result.missing, result.dead_lettered) == ([], ["bad.png"])
    await check_complete(
        Connections(FakeEmbedder(), index, log, FakeGroupAdmin(log=log)), collection, {0: 1}, 0.0
    )


async def test_a_retry_never_overtakes_a_new_version_at_the_same_offset(
    log: FakeEventLog,
) -> None:
    await refuse(log, await publish(log, "x.png", "a"))
    lose_the_last(log, IMAGES)
    new = await publish(log, "x.png", "b")
    (letter,) = await open_letters(log)
    assert letter.source == new.position
    done = await retry(log, [letter])
    assert (done.published, done.superseded) == ([], [letter.name])
    assert log.topics[IMAGES.name][0] == [new]


@pytest.mark.parametrize("letters_in", [0, 1])
async def test_only_the_dead_letter_that_was_read_is_settled(
    log: FakeEventLog, letters_in: int
) -> None:
    """Somebody settles a letter that they read before the topic lost it.

    Partitions are read in any order, so either may come first.
    """
    placed = log.topics[IMAGES_DLQ.name] = [[], []]

    async def put(partition: int, message: Message) -> None:
        one = FakeEventLog(topics={IMAGES_DLQ.name: [[]]})
        await one.publish(IMAGES_DLQ, [message])
        (record,) = one.topics[IMAGES_DLQ.name][0]
        position = Position(partition, len(placed[partition]))
        placed[partition].append(record._replace(position=position))

    def letter(record: LogRecord, image_id: str) -> Message:
        return Poison(record, image_id, "Rejected", "no picture").message(IMAGES.name, "small")

    await put(letters_in, letter(await publish(log, "x.png", "a"), "x.png"))
    (lost,) = await read_letters(log)
    del placed[letters_in][-1]
    await put(letters_in, letter(await publish(log, "y.png", "b"), "y.png"))
    await put(1 - letters_in, settling(lost, "overtaken"))
    (found,) = await read_letters(log)
    assert (found.name, found.event.image_id, found.settled_as) == (lost.name, "y.png", None)
    open_letters_reader: OpenLetters[Letter] = OpenLetters(log, lambda each: each)
    assert list(await open_letters_reader.current()) == [found.name]
    await put(1 - letters_in, settling(found, "dropped"))
    assert await open_letters(log) == []
    assert await open_letters_reader.current() == {}
    assert await OpenLetters[Letter](log, lambda each: each).current() == {}


async def test_no_dead_letter_is_listed_with_the_reason_of_another(
    log: FakeEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reasons that are no longer in memory are read again from their offsets."""
    monkeypatch.setattr(of_the_gateway, "WITH_REASON", 0)

    def letter(name: str) -> Message:
        event = DeadLetter(
            image_id=name,
            error_class="Rejected",
            reason=f"why {name}",
            attempts=1,
            source_topic=IMAGES.name,
        )
        return Message(name, event)

    await log.publish(IMAGES_DLQ, [letter("a"), letter("b")])
    newest = of_the_gateway.NewestOpenLetters(log)
    known = await newest.current()
    assert [each.reason for each in known] == [None, None]
    lose_the_last(log, IMAGES_DLQ)
    await log.publish(IMAGES_DLQ, [letter("c")])
    reported = [(each.image_id, why.text) for each, why in await newest.with_reasons(known)]
    assert reported == [("a", "why a")]
