"""Log lines of our processes: one line each, on standard error."""

import logging
import os


def configure_logging() -> None:
    """Log at LOG_LEVEL (default INFO); what clients say at that level is their own business."""
    logging.basicConfig(
        level=os.environ.get("LOG_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for chatty in ("httpx", "aiokafka", "faststream", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
