"""`python -m consumers indexing|analytics`: run one member of that consumer group."""

from __future__ import annotations

import sys

from adapters.idle_memory import return_memory_when_idle
from adapters.logging import configure_logging
from adapters.settings import exit_on_bad_settings


def main() -> None:
    """Run the consumer that the command line names."""
    if len(sys.argv) != 2 or sys.argv[1] not in ("indexing", "analytics"):
        sys.exit("usage: python -m consumers indexing|analytics")
    configure_logging()
    return_memory_when_idle()
    # Import only what this consumer needs: the other's libraries take a fifth of its memory.
    if sys.argv[1] == "analytics":
        from consumers.analytics.app import main as run
    else:
        from consumers.indexing.app import main as run
    run()


if __name__ == "__main__":
    with exit_on_bad_settings():
        main()
