"""What a training step asks of the device, and of the host, on a CUDA runtime that runs nothing.

python -m tests.cuda_host        writes the table of launches, copies and waits
python -m tests.cuda_host host   prints the CPU time of a step that no graph captures, see host.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.cuda_host import runtime, table


def main(words: list[str]) -> int:
    """Do it; say what is missing where that cannot be."""
    reason = runtime.missing() if words in ([], ["host"]) else f"expected no word, or host, got {' '.join(words)}"
    if reason is not None:
        print(f"tests.cuda_host: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        program = "tests.cuda_host.host" if words else "tests.cuda_host.steps"
        done = runtime.run(runtime.build(Path(folder)), "-m", program)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return 1
    if words:
        print(done.stdout, end="")
        return 0
    table.write(json.loads(done.stdout))
    print(f"wrote {table.PATH}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
