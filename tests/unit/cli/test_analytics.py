"""The analytics commands refuse what they cannot do before they contact a server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cli import analytics
from stack.errors import StackError


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (lambda: analytics.replay_events("nothing", None, None), "there is no topic 'nothing'"),
        (lambda: analytics.replay_events("models", "yesterday", None), "--from: 'yesterday'"),
        (lambda: analytics.replay_events("models", None, "then"), "--to: 'then'"),
        (lambda: analytics.sql("FROM totals", since="soon"), "--since: 'soon'"),
        (lambda: analytics.forget_events(None, None, None), "specify --search, --client or --who"),
    ],
)
def test_wrong_options_are_named(command: Callable[[], None], reason: str) -> None:
    with pytest.raises(StackError, match=reason):
        command()
