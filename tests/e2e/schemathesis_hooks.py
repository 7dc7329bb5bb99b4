"""What schemathesis must know beyond the OpenAPI document."""

from typing import Any

import schemathesis

LONGEST_WAIT = 0.2


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Shorten `wait_for`: each search for an image that nobody adds would take up to a minute."""
    wait_for = case.body.get("wait_for") if isinstance(case.body, dict) else None
    if isinstance(wait_for, dict):
        timeout = wait_for.get("timeout_s", 10.0)
        if isinstance(timeout, int | float) and LONGEST_WAIT < timeout <= 60:
            wait_for["timeout_s"] = LONGEST_WAIT
