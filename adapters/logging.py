"""Log lines of our processes: one line each, on standard error."""

import logging

from pydantic import field_validator

from adapters.settings import EnvironmentSettings


class LoggingSettings(EnvironmentSettings):
    """What every process logs."""

    log_level: str = "INFO"
    """Least level of what is logged: `DEBUG`, `INFO`, `WARNING` or `ERROR`."""

    @field_validator("log_level")
    @classmethod
    def _is_level(cls, value: str) -> str:
        level = value.upper()
        if level not in logging.getLevelNamesMapping():
            raise ValueError(f"is none of {', '.join(logging.getLevelNamesMapping())}")
        return level


def configure_logging() -> None:
    """Log at LOG_LEVEL (default INFO); what clients say at that level is their own business.

    Raises:
        BadSettings: LOG_LEVEL is no level.
    """
    logging.basicConfig(
        level=LoggingSettings().log_level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for chatty in ("httpx", "aiokafka", "faststream", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
