"""`python -m tests.hostile_indexer`: an indexer some of whose pictures meet bad decoders."""

from consumers import app, decoding
from tests import hostile


def main() -> None:
    """As `python -m consumers indexing`, but for what decodes."""
    decoding.TASK = f"{hostile.MODULE}:read_and_decode"  # type: ignore[misc]
    app.main()


if __name__ == "__main__":
    main()
