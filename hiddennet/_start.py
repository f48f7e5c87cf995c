"""What a command does before torch is loaded: threads that wait without spinning, Ctrl-C that ends it in a sentence.

Only for `hiddennet ...` and `python -m hiddennet...`: a program that imports the package keeps what it has.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType


def is_command() -> bool:
    """Whether this process was started as one of our commands, also by torchrun."""
    if sys.argv[:1] == ["-m"]:  # as runpy has it until the module is found
        return any(argument.partition(".")[0] == "hiddennet" for argument in sys.orig_argv[1:])
    return Path(next(iter(sys.argv), "")).name == "hiddennet"


def _stop(signum: int, frame: FrameType | None) -> None:
    os.write(2, b"hiddennet: stopped by SIGINT\n")
    os._exit(130)


def prepare() -> None:
    """Call before torch is imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def begin() -> None:
    """Call when all is imported: from here on Ctrl-C is KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)
