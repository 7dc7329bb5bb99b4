"""Log lines of our processes: one line each, on standard error."""

import logging
import os

from adapters.settings import BadSettings


def configure_logging() -> None:
    """Log at LOG_LEVEL (default INFO); what clients say at that level is their own business.

    Raises:
        BadSettings: LOG_LEVEL is no level.
    """
    level = os.environ.get("LOG_LEVEL", "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise BadSettings(f"LOG_LEVEL: is none of {', '.join(logging.getLevelNamesMapping())}")
    logging.basicConfig(
        level=level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for chatty in ("httpx", "aiokafka", "faststream", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
