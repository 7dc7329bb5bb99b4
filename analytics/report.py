"""The analytics page as one self-contained HTML file."""

from __future__ import annotations

import html
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from analytics.dashboard import dashboard
from analytics.views import EventFilters

if TYPE_CHECKING:
    from analytics.lake import Lake

WEB: Final = Path(__file__).with_name("web")
ASSETS: Final = {
    "analytics.css": ("analytics.css", "text/css; charset=utf-8"),
    "analytics.js": ("analytics.js", "text/javascript; charset=utf-8"),
    "chart.js": ("vendor/chart.js", "text/javascript; charset=utf-8"),
}
"""Name under `/analytics/` -> file below `web/`, and its media type."""

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<title>Image search: analytics</title>
<style>{style}</style>
</head>
<body>
<header><h1>Image search · analytics</h1><p class="quiet">{about}</p></header>
<main><dl id="totals" class="totals"></dl><div id="charts" class="charts"></div></main>
<script type="application/json" id="data">{data}</script>
<script>{charts}</script>
<script>{script}</script>
</body>
</html>
"""


def render(lake: Lake, filters: EventFilters) -> str:
    """The report for these filters, as HTML. Blocks.

    Raises:
        Unavailable: the lake is empty or cannot be read.
    """
    # A query text may contain "</script>", which would end the element.
    data = json.dumps(dashboard(lake, filters), ensure_ascii=False).replace("<", "\\u003c")
    files = {name: (WEB / file).read_text(encoding="utf-8") for name, (file, _) in ASSETS.items()}
    return _PAGE.format(
        style=files["analytics.css"],
        charts=files["chart.js"],
        script=files["analytics.js"],
        data=data,
        about=html.escape(_about(filters)),
    )


def _about(filters: EventFilters) -> str:
    parts = [f"made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"]
    if filters.since is not None:
        parts.append(f"from {filters.since.isoformat()}")
    if filters.until is not None:
        parts.append(f"to {filters.until.isoformat()}")
    if filters.model is not None:
        parts.append(f"model {filters.model}")
    return ", ".join(parts)
