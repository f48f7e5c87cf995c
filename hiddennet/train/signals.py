"""Ctrl-C and SIGTERM as a wish to stop that the loop asks for. Not for anything but the loop."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Stopped(Exception):
    """The run ended early by a signal, with its state saved. `code` is the exit status."""

    def __init__(self, signum: int):
        self.signum = signum
        self.code = 128 + signum
        super().__init__(signal.Signals(signum).name)


class StopWish:
    """Within it, the first SIGINT or SIGTERM only sets `signum`; a second one acts as always."""

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopWish:
        if threading.current_thread() is threading.main_thread():
            self._before = {signum: signal.signal(signum, self._note) for signum in self.signals}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}
