"""What each process of test_ranks.py does that is stopped and goes on; torchrun starts it with configs to run so."""

from __future__ import annotations

import os
import signal
import sys

import torch

from hiddennet import config
from hiddennet.methods import METHODS
from hiddennet.train import experiment, machine
from hiddennet.train.ranks import Ranks, leave
from hiddennet.train.signals import Stopped

STEPS = 3, 8  # at which one process gets a signal; the run stops where all look, every second step


def main(*paths: str) -> None:
    torch.set_num_threads(1)
    ranks = Ranks()
    ranks.start(machine.choose_device("cpu"))
    for path in paths:
        settings = config.load(path)
        method = METHODS[settings.method.name]
        own, left = method.after_update, list(STEPS)

        def after_update(self, model, step, own=own, left=left) -> None:
            own(self, model, step)
            if left and step == left[0]:
                left.pop(0)
                if ranks.rank == 1:
                    os.kill(os.getpid(), signal.SIGTERM)

        experiment.run(config.load(path, [f"runs={settings.runs}-whole"]), bar=False)
        method.after_update = after_update
        for _ in STEPS:
            try:
                experiment.run(settings, bar=False)
            except Stopped:
                continue
            raise AssertionError("was not stopped")
        if "left" in settings.name:  # for one process to go on with
            continue
        experiment.run(settings, bar=False)
        method.after_update = own
    ranks.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave(0)
