"""The main job on data that needs no download: dense, random mask and edge-popup on digits, then the exported file.

`python -m hiddennet.demo` (or `make demo`). Edge-popup never trains a weight; the file that is evaluated at the end
holds a seed, one bit a weight and nothing else of the network's weights.
"""

from __future__ import annotations

import sys
import time

from hiddennet.compare import compare, side_by_side
from hiddennet.run import guarded

CONFIGS = ("digits-dense", "digits-random", "digits")


def execute() -> int:
    """Run the three configs anew, print them side by side, evaluate the artifact; return the exit status."""
    from hiddennet.train import evaluate

    begun = time.perf_counter()
    records = compare(CONFIGS, fresh=True)
    print(side_by_side(records))
    print(f"\nthe exported hidden network, read back from {records[-1]['artifact']}:")
    print(evaluate.summary(evaluate.evaluate(records[-1]["artifact"])))
    print(f"\nall of it took {time.perf_counter() - begun:.0f} s")
    return 0


def main() -> int:
    """The command line; returns the exit status."""
    return guarded(execute, "hiddennet demo")


if __name__ == "__main__":
    sys.exit(main())
