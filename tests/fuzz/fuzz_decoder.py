"""Fuzzes the machine with inputs of tests.fuzz.target.

Run: python -m tests.fuzz.fuzz_decoder NEW_UNITS tests/fuzz/corpus -max_total_time=600 -max_len=4096

NEW_UNITS is a folder for what is found. Where atheris has no wheel the same inputs are mutated by chance,
without coverage to guide them.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

try:
    import atheris
except ImportError:
    atheris = None


def by_chance(folders: list[str], seconds: float) -> None:
    """Without atheris: seeds from the folders, bytes flipped, cut and joined at random."""
    from tests.fuzz.target import one_input

    seeds = [path.read_bytes() for folder in folders for path in sorted(Path(folder).iterdir())] or [b"\x06"]
    seed = random.randrange(2**32)
    print(f"no atheris here: mutating {len(seeds)} seeds by chance, seed {seed}", flush=True)
    chance, runs, end = random.Random(seed), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 9)):
            at = chance.randrange(len(data) + 1)
            if chance.randrange(3):
                data[at : at + 1] = bytes([chance.randrange(256)])
            else:
                data[at:] = chance.choice(seeds)[chance.randrange(2) :]
        try:
            one_input(bytes(data))
        except BaseException:
            print(f"failing input: {data.hex()}", flush=True)
            raise
        runs += 1
    print(f"Done {runs} runs", flush=True)


def main(arguments: list[str]) -> None:
    if atheris is not None:
        with atheris.instrument_imports(include=["tunnel_protocol"]):
            from tests.fuzz.target import one_input
        atheris.Setup(arguments, one_input)
        atheris.Fuzz()
        return
    limits = [float(word.split("=")[1]) for word in arguments if word.startswith("-max_total_time=")]
    by_chance([word for word in arguments[1:] if not word.startswith("-")], limits[0] if limits else 60.0)


if __name__ == "__main__":
    main(sys.argv)
