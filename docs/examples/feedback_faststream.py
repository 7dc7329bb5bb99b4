"""Reads `feedback` with FastStream in its own consumer group; prints each rating as a JSON line.

KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 GROUP=my-ratings faststream run feedback_faststream:app

The policy matters: FastStream's default commits first, so a crash loses ratings. With
`NACK_ON_ERROR` an offset is committed after its rating was handled, and a rating whose handler
fails is delivered again.
"""

import json
import os
from uuid import UUID

from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage
from pydantic import BaseModel, Field

broker = KafkaBroker(os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"))
app = FastStream(broker)


class Rating(BaseModel):
    """The fields used here; others are ignored. `/api/v1/asyncapi.json` describes all of them."""

    schema_version: str = Field(pattern=r"^1\.\d+$")
    event_id: UUID
    search_id: UUID
    rating: int = Field(ge=1, le=10)
    model_name: str


@broker.subscriber(
    "feedback",
    group_id=os.environ.get("GROUP", "my-ratings"),
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.NACK_ON_ERROR,
)
async def handle(message: KafkaMessage) -> None:
    """Your work goes here. Invalid records are skipped, as a retry would not help."""
    try:
        rating = Rating.model_validate_json(message.body)
    except ValueError as error:
        print(json.dumps({"unreadable": str(error)}), flush=True)
    else:
        print(rating.model_dump_json(exclude={"schema_version"}), flush=True)
