"""Write the table of `docs/formats.md` anew."""

from tests.corpus.table import write
from tests.support.corpus_cases import cases

write(cases())
