"""Search for inputs that a target cannot take, guided by coverage.

    make fuzz                 # FUZZ_MINUTES=60, spread over the targets

`python -m tests.fuzz.run TARGET SECONDS FOLDER` runs one of them; inputs that reach new code are
kept in the folder, and one that is a finding is written there as `crash-…`, `timeout-…` or
`oom-…`. Copy it to `tests/fuzz/seeds/TARGET`, where it is a test from then on.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gateway", "schemas", "adapters", "imaging", "PIL"]):
    from tests.fuzz.json_mutator import mutate
    from tests.fuzz.targets import SEEDS, TARGETS
    from tests.support.corpus_cases import cases

LONGEST_SECONDS = 20
MEMORY_MIB = 3000
DOCUMENTS = {"codec": b"\0", "http": b"\n\n"}
"""Targets whose inputs hold a JSON document, and what stands before it."""


def main() -> None:
    """Run libFuzzer on one target until the time is over."""
    name, seconds, folder = sys.argv[1:]
    found = Path(folder) / name
    found.mkdir(parents=True, exist_ok=True)
    seeds = SEEDS / name
    seeds.mkdir(exist_ok=True)
    if name == "pictures":
        for number, case in enumerate(cases()):
            if len(case.data) < 100_000:
                (found / f"corpus-{number}").write_bytes(case.data)
    arguments = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-timeout={LONGEST_SECONDS}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={found}/",
        "-max_len=65536",
        "-print_final_stats=1",
        str(found),
        str(seeds),
    ]
    separator = DOCUMENTS.get(name)
    examples = [path.read_bytes() for path in sorted(seeds.iterdir())]

    def mutated(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if separator is not None and chance.random() < 0.7:
            # Documents that differ in what a compiled parser does with them look the same to a
            # fuzzer that sees Python alone, so it would soon have forgotten the examples.
            changed = mutate(chance.choice([data, *examples]), separator, chance)
            if changed is not None and len(changed) <= max_size:
                return changed
        return bytes(atheris.Mutate(data, max_size))

    # The fuzzer starts with short inputs, which no document of ours is.
    arguments.insert(1, "-len_control=0")
    atheris.Setup(arguments, TARGETS[name], custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
