"""The base of the fakes (in-memory) that stand for the servers behind the ports."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.errors import Unavailable


@dataclass
class Fake:
    """A fake server that a test can make unavailable."""

    available: bool = True

    def check(self) -> None:
        """Return if the server is available.

        Raises:
            Unavailable: it is not.
        """
        if not self.available:
            raise Unavailable(f"{type(self).__name__} is switched off")
