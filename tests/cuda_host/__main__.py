"""Write the table of what a training step asks of the device: python -m tests.cuda_host"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.cuda_host import runtime, table


def main() -> int:
    """Write it; say what is missing where that cannot be."""
    reason = runtime.missing()
    if reason is not None:
        print(f"tests.cuda_host: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        done = runtime.run(runtime.build(Path(folder)), "-m", "tests.cuda_host.steps")
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return 1
    table.write(json.loads(done.stdout))
    print(f"wrote {table.PATH}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
