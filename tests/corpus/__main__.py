"""Write the table of `docs/formats.md` again."""

from tests.corpus.formats_table import write
from tests.support.corpus_cases import cases

write(cases())
