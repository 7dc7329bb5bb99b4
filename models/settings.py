"""Settings: when another model is suggested."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from adapters.settings import EnvironmentSettings, Seconds


class AdviceSettings(EnvironmentSettings):
    """When ratings are so low that another model is suggested."""

    advice_window: Seconds = 7 * 24 * 3600.0
    """Ratings of this many last seconds count."""
    advice_threshold: Annotated[float, Field(ge=1, le=10)] = 5.0
    """Mean rating, 1 to 10, below which another model is looked for."""
    advice_ratings: Annotated[int, Field(ge=1)] = 10
    """With fewer ratings than this, nothing is suggested."""
    advice_refresh: Seconds = 300.0
    """Seconds after which the gateway computes the suggestion again."""
