"""Fuzzes the edge against h11.

Run: python -m tests.fuzz.edge.run [--seed SEED] [--requests 1000000] [--only NUMBER]

``--only`` makes one input of a seed again, prints it and what became of it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.fuzz.edge.inputs import make
from tests.fuzz.edge.memory import Finding, MemoryEdge
from tests.fuzz.edge.oracle import compare


@dataclass
class Tally:
    """What a run saw; ``served`` reached the device, ``stricter`` counts what only h11 reads, by reason."""

    inputs: int = 0
    requests: int = 0
    served: int = 0
    refused: int = 0
    stricter: Counter[str] = field(default_factory=Counter)


async def fuzz(seed: int, requests: int) -> Tally:
    """Inputs of this seed until there were so many requests; Finding names the input."""
    edge, tally = MemoryEdge(), Tally()
    while tally.requests < requests:
        one = make(seed, tally.inputs)
        try:
            outcome = await edge.run(one.pieces)
            reason = compare(one.data, outcome)
        except Finding as finding:
            raise Finding(f"seed {seed}, input {tally.inputs}: {finding}\n{one.data!r}") from finding
        tally.inputs += 1
        tally.requests += one.requests
        tally.served += len(outcome.requests)
        tally.refused += bool(outcome.reason)
        if reason:
            tally.stricter[reason] += 1
    return tally


def new_seed() -> int:
    """What `make soak SEED=…` says, else another one each time; a finding names it."""
    return int(os.environ.get("TOWLINE_SEED", random.randrange(2**31)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=new_seed())
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--only", type=int)
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)
    if arguments.only is not None:
        one = make(arguments.seed, arguments.only)
        print(one)
        outcome = asyncio.run(MemoryEdge().run(one.pieces))
        print(outcome)
        print(compare(one.data, outcome))
        return
    print(f"seed {arguments.seed}", flush=True)
    started = time.monotonic()
    tally = asyncio.run(fuzz(arguments.seed, arguments.requests))
    print(tally, f"in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
