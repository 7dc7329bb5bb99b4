"""`python -m tests.support.hostile_indexer`: an indexer whose pictures meet bad decoders."""

from consumers.indexing import app, decoding
from tests.support import hostile_tasks


def main() -> None:
    """As `python -m consumers indexing`, with other decoding tasks."""
    decoding.TASK = f"{hostile_tasks.MODULE}:read_and_decode"  # type: ignore[misc]
    app.main()


if __name__ == "__main__":
    main()
