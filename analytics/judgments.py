"""Exports ratings for evaluation tools (TREC, UBI), and computes metrics from them.

A query is identified by its text, ignoring case and surrounding space, whichever model answered.
Only ratings of single images are judgments; a rating of a whole answer is not. Of several ratings
of one image the median counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import ir_measures
from ir_measures import RR, P, nDCG

from analytics.lake import Lake
from analytics.views import EventFilters, query

APPLICATION: Final = "image-search"
RELEVANT: Final = 2
"""Grade from which an image counts as relevant, for binary metrics."""
MEASURES: Final = (nDCG @ 10, RR(rel=RELEVANT) @ 10, P(rel=RELEVANT) @ 5, P(rel=RELEVANT) @ 10)

_JUDGMENTS: Final = """
SELECT lower(trim(text)) AS query, image_name, floor(median(rating))::INTEGER AS rating
FROM feedback WHERE image_name IS NOT NULL AND text IS NOT NULL
GROUP BY ALL ORDER BY ALL
"""
# Each model's newest answer to a query, which is closest to what it would answer now.
_RUNS: Final = """
SELECT lower(trim(text)) AS query, model_name, results
FROM searches WHERE text IS NOT NULL
QUALIFY row_number() OVER (
  PARTITION BY query, model_name ORDER BY occurred_at DESC, search_id) = 1
ORDER BY model_name, query
"""


def grade(rating: int) -> int:
    """The TREC grade of a rating: 1 to 3 is 0, 4 to 6 is 1, 7 to 9 is 2, and 10 is 3."""
    return (rating - 1) // 3


def query_id(text: str) -> str:
    """A short id of the query, the same in every export."""
    return f"q{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def write_trec(lake: Lake, folder: Path, filters: EventFilters | None = None) -> dict[Path, int]:
    """Write `qrels.txt`, `queries.tsv` and a run file per model. Blocks.

    White space in image names, which TREC's format does not allow, is percent-encoded.

    Returns:
        File -> number of lines.
    """
    judged = query(lake, _JUDGMENTS, filters)
    runs = query(lake, _RUNS, filters)
    texts = sorted({row["query"] for row in (*judged, *runs)})
    written = {
        "queries.tsv": [f"{query_id(text)}\t{' '.join(text.split())}" for text in texts],
        "qrels.txt": [
            f"{query_id(row['query'])} 0 {_word(row['image_name'])} {grade(row['rating'])}"
            for row in judged
        ],
    }
    for row in runs:
        name = f"run-{quote(row['model_name'], safe='')}.txt"
        written.setdefault(name, []).extend(
            f"{query_id(row['query'])} Q0 {_word(found['image_name'])} {rank} {found['score']:.6f} "
            f"{_word(row['model_name'])}"
            for rank, found in enumerate(row["results"], start=1)
        )
    return _write(folder, written)


def metrics(lake: Lake, filters: EventFilters | None = None) -> dict[str, dict[str, float | int]]:
    """Model -> measure -> mean over the judged queries that the model has answered. Blocks.

    Images without a judgment count as irrelevant, so models can only be compared on judgments
    that were collected from the answers of each. Measures are computed by ir-measures (MacAvaney,
    Macdonald, Ounis 2022) on top of trec_eval; `queries` is the number of queries.
    """
    judged = [
        ir_measures.Qrel(query_id(row["query"]), row["image_name"], grade(row["rating"]))
        for row in query(lake, _JUDGMENTS, filters)
    ]
    judged_queries = {qrel.query_id for qrel in judged}
    runs: dict[str, list[Any]] = {}
    answered: dict[str, set[str]] = {}
    for row in query(lake, _RUNS, filters):
        name = query_id(row["query"])
        if name in judged_queries:
            answered.setdefault(row["model_name"], set()).add(name)
            runs.setdefault(row["model_name"], []).extend(
                ir_measures.ScoredDoc(name, found["image_name"], found["score"])
                for found in row["results"]
            )
    result: dict[str, dict[str, float | int]] = {}
    for model, run in sorted(runs.items()):
        ours = [qrel for qrel in judged if qrel.query_id in answered[model]]
        found = ir_measures.calc_aggregate(MEASURES, ours, run)
        result[model] = {
            "queries": len(answered[model]),
            **{str(measure): float(found[measure]) for measure in MEASURES},
        }
    return result


def write_ubi(lake: Lake, folder: Path, filters: EventFilters | None = None) -> dict[Path, int]:
    """Write `ubi_queries.ndjson` and `ubi_events.ndjson` of User Behavior Insights 1.3. Blocks.

    A rating is an event with the action `rate`; the rated image is its object, and its rank in
    the answer its position.

    Returns:
        File -> number of lines.
    """
    searches = query(lake, "FROM searches ORDER BY occurred_at, search_id", filters)
    ratings = query(
        lake,
        """
        SELECT f.search_id, f.occurred_at, f.rating, f.image_name, f.text, f.model_name, s.client,
          list_position(s.result_names, f.image_name) AS position
        FROM feedback f LEFT JOIN all_searches s ON s.search_id = f.search_id
        ORDER BY f.occurred_at, f.event_id
        """,
        filters,
    )
    return _write(
        folder,
        {
            "ubi_queries.ndjson": [_line(_ubi_query(row)) for row in searches],
            "ubi_events.ndjson": [_line(_ubi_event(row)) for row in ratings],
        },
    )


def _ubi_query(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "application": APPLICATION,
        "query_id": row["search_id"],
        "client_id": row["client"] or "unknown",
        "user_query": row["text"] or "",
        "object_id_field": "image_name",
        "timestamp": _time(row["occurred_at"]),
        "query_attributes": {
            "kind": row["kind"],
            "limit": row["limit"],
            "filters": json.loads(row["filters"] or "{}"),
            "model_name": row["model_name"],
            "model_version": row["model_version"],
        },
        "query_response_id": row["event_id"],
        "query_response_hit_ids": row["result_names"],
    }


def _ubi_event(row: Mapping[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "rating": row["rating"],
        "model_name": row["model_name"],
    }
    if row["image_name"] is not None:
        attributes["object"] = {
            "object_id": row["image_name"],
            "object_id_field": "image_name",
        }
    if row["position"] is not None:
        attributes["position"] = {"ordinal": row["position"]}
    return {
        "application": APPLICATION,
        "action_name": "rate",
        "query_id": row["search_id"],
        "client_id": row["client"] or "unknown",
        "timestamp": _time(row["occurred_at"]),
        "message_type": "FEEDBACK",
        "message": f"rated {row['rating']} of 10",
        "user_query": row["text"] or "",
        "event_attributes": attributes,
    }


def _time(moment: datetime) -> str:
    return moment.replace(tzinfo=UTC).isoformat(timespec="milliseconds")


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _word(name: str) -> str:
    return "".join(quote(char) if char.isspace() else char for char in name)


def _write(folder: Path, files: Mapping[str, Iterable[str]]) -> dict[Path, int]:
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[Path, int] = {}
    for name, lines in files.items():
        path = folder / name
        listed = list(lines)
        path.write_text("".join(f"{line}\n" for line in listed), encoding="utf-8")
        counts[path] = len(listed)
    return counts
