"""Settings for suggesting another model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from adapters.settings import EnvironmentSettings, Seconds


class AdviceSettings(EnvironmentSettings):
    """When another model is suggested because of low ratings."""

    advice_window: Seconds = 7 * 24 * 3600.0
    """Age in seconds up to which ratings are considered."""
    advice_threshold: Annotated[float, Field(ge=1, le=10)] = 5.0
    """Mean rating, 1 to 10, below which another model may be suggested."""
    advice_ratings: Annotated[int, Field(ge=1)] = 10
    """With fewer ratings than this, nothing is suggested."""
    advice_refresh: Seconds = 300.0
    """Seconds after which the gateway computes the suggestion again."""
