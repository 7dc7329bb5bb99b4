"""Write the table of `docs/formats.md` anew."""

from tests.corpus.table import write
from tests.unit.corpus import cases

write(cases())
