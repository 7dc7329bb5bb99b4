"""Logging of every process: to standard error, one line per message."""

import logging

from pydantic import field_validator

from adapters.settings import EnvironmentSettings


class LoggingSettings(EnvironmentSettings):
    """Logging, in every process."""

    log_level: str = "INFO"
    """Lowest level of messages that are logged: `DEBUG`, `INFO`, `WARNING` or `ERROR`."""

    @field_validator("log_level")
    @classmethod
    def _is_level(cls, value: str) -> str:
        level = value.upper()
        if level not in logging.getLevelNamesMapping():
            raise ValueError(f"must be one of {', '.join(logging.getLevelNamesMapping())}")
        return level


def configure_logging() -> None:
    """Log at LOG_LEVEL (default INFO); verbose client libraries only log from WARNING on.

    Raises:
        BadSettings: LOG_LEVEL is not a level.
    """
    logging.basicConfig(
        level=LoggingSettings().log_level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for chatty in ("httpx", "httpx2", "aiokafka", "faststream", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
