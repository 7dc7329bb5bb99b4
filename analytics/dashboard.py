"""All figures of the analytics page, and the searches that each of them counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from analytics.engine import CancellationToken, QueryLimits
from analytics.views import EventFilters, query, read

if TYPE_CHECKING:
    from analytics.lake import Lake

QUERIES: Final = {
    "totals": "FROM totals",
    "over_time": "FROM searches_over_time",
    "latency": "FROM latency_by_stage",
    "weak_queries": "FROM weak_queries LIMIT 15",
    "most_liked": "FROM most_liked LIMIT 10",
    "least_liked": "FROM least_liked LIMIT 10",
    "rating_counts": "FROM rating_counts",
    "ratings_by_week": "FROM ratings_by_model_week",
    "ratings_by_score": "FROM ratings_by_score",
    "ratings_by_position": "FROM ratings_by_position WHERE place <= 20",
    "ratings_by_rated_images": "FROM ratings_by_rated_images",
    "rated_images": "FROM rated_images LIMIT 10",
    "score_correlation": "FROM score_correlation",
    "time_to_searchable": "FROM time_to_searchable",
    "dead_letters": "FROM dead_letters_by_class LIMIT 15",
    "model_switches": "FROM model_switches",
    "models": "SELECT DISTINCT model_name FROM all_searches ORDER BY model_name",
}
"""Name in the answer -> its query."""

_BUCKET: Final = """
SET VARIABLE bucket = (
  SELECT CASE
    WHEN coalesce(max(occurred_at) - min(occurred_at), INTERVAL 0 DAY)
      <= INTERVAL 4 DAY THEN 'hour' ELSE 'day' END
  FROM searches)
"""
"""Periods of up to four days are shown by hour, longer ones by day."""
_CHOSEN: Final = "SELECT getvariable('bucket') AS bucket"


@dataclass(frozen=True, slots=True)
class DrillDown:
    """Selects the searches that one figure counts, besides the page's filters; None means any."""

    text: str | None = None
    """The query text; empty for searches without a recorded text."""
    kind: str | None = None
    rating: int | None = None
    position: int | None = None
    """The position of a rated image in the answer, from 1."""
    score_from: float | None = None
    score_below: float | None = None
    without_result: bool = False
    weak: bool = False
    """Without results, or with a low best score (see the view `weak_queries`)."""
    rated: bool = False
    rated_images: int | None = None
    """Number of images of the answer that were rated in the period."""


def dashboard(
    lake: Lake,
    filters: EventFilters,
    *,
    limits: QueryLimits | None = None,
    cancellation: CancellationToken | None = None,
) -> dict[str, Any]:
    """Name -> rows, with times as ISO 8601 in UTC. Blocks; raises as `analytics.views.query`."""
    # The first query sets the variable that the others use.
    found = read(
        lake,
        {"": _BUCKET, **QUERIES, "bucket": _CHOSEN},
        filters,
        limits=limits,
        cancellation=cancellation,
    )
    answer: dict[str, Any] = {name: _plain(found[name]) for name in QUERIES}
    answer["models"] = [row["model_name"] for row in answer["models"]]
    for single in ("totals", "score_correlation"):
        (answer[single],) = answer[single]
    return {"bucket": found["bucket"][0]["bucket"], **answer}


def searches(
    lake: Lake,
    filters: EventFilters,
    drill_down: DrillDown,
    *,
    limit: int = 50,
    limits: QueryLimits | None = None,
    cancellation: CancellationToken | None = None,
) -> list[dict[str, Any]]:
    """The newest `limit` selected searches, each with its results and ratings. Blocks.

    Raises as `analytics.views.query`.
    """
    rows = query(
        lake,
        """
        SELECT s.search_id, s.occurred_at, s.text, s.kind, s.model_name, s.model_version,
          s.latency_ms.total AS latency_ms, s.results, r.ratings
        FROM all_searches s LEFT JOIN (
          SELECT search_id, list({'image_name': image_name, 'rating': rating}) AS ratings
          FROM all_feedback GROUP BY search_id
        ) r ON r.search_id = s.search_id
        WHERE ($by_rating OR (in_period(s.occurred_at) AND of_model(s.model_name)))
          AND ($text IS NULL OR coalesce(s.text, '') = $text)
          AND ($kind IS NULL OR s.kind = $kind)
          AND ($score_from IS NULL OR s.top_score >= $score_from)
          AND ($score_below IS NULL OR s.top_score < $score_below)
          AND (NOT $without_result OR s.result_count = 0)
          AND (NOT $weak OR s.result_count = 0
            OR s.top_score < coalesce(getvariable('weak_score')::DOUBLE, 0.2))
          AND ($rated_images IS NULL OR s.search_id IN (
            SELECT search_id FROM feedback GROUP BY search_id
            HAVING count(image_name) = $rated_images))
          AND (NOT $by_rating OR s.search_id IN (
            SELECT f.search_id FROM feedback f JOIN all_searches a ON a.search_id = f.search_id
            WHERE ($rating IS NULL OR f.rating = $rating)
              AND ($position IS NULL
                OR list_position(a.result_names, f.image_name) = $position)))
        ORDER BY s.occurred_at DESC, s.search_id LIMIT $count
        """,
        filters,
        {
            "text": drill_down.text,
            "kind": drill_down.kind,
            "score_from": drill_down.score_from,
            "score_below": drill_down.score_below,
            "without_result": drill_down.without_result,
            # Rating charts count the ratings of the period, even if the search is older.
            "by_rating": drill_down.rated
            or any(
                n is not None
                for n in (drill_down.rating, drill_down.position, drill_down.rated_images)
            ),
            "weak": drill_down.weak,
            "rated_images": drill_down.rated_images,
            "rating": drill_down.rating,
            "position": drill_down.position,
            "count": limit,
        },
        limits=limits,
        cancellation=cancellation,
    )
    found: list[dict[str, Any]] = _plain(rows)
    for row in found:
        row["ratings"] = row["ratings"] or []
    return found


def _plain(value: Any) -> Any:
    """The value in JSON types."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
