"""The loggers of a run: what each is told, and when. Only the first process of a run has any."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet.nn import hidden_layers, masks
from hiddennet.train import checkpoint
from hiddennet.train.scores import Scores


class Telling:
    """Calls what the loggers have of `start`, `step`, `network`, `add`, `finish` and `close`, see hiddennet.loggers."""

    def __init__(self, loggers: Iterable[Any] = ()):
        self.loggers = list(loggers)
        self._seen = Scores(0.0, 0.0, 0.0, 0)

    def _all(self, hook: str, *arguments: Any) -> None:
        for logger in self.loggers:
            if hasattr(logger, hook):
                getattr(logger, hook)(*arguments)

    def start(self, config: Mapping[str, Any], step: int, scores: Scores | None, model: nn.Module) -> None:
        """scores: of the epoch's part that is done, where the run goes on within an epoch."""
        self._seen = scores or self._seen
        self._all("start", config, step)
        if scores is None:
            self._tell_network("before", model)

    def step(self, scores: Scores, step: int, lr: float) -> None:
        """scores: the epoch's so far; told is the mean loss of the steps since this was called before."""
        seen = self._seen if self._seen.images <= scores.images else Scores(0.0, 0.0, 0.0, 0)
        images = scores.images - seen.images
        if images:
            loss = (scores.loss * scores.images - seen.loss * seen.images) / images
            self._all("step", {"loss": loss, "lr": lr}, step)
        self._seen = scores

    def add(self, row: Mapping[str, Any], epoch: int, model: nn.Module) -> None:
        """The end of an epoch, with the network as it is then."""
        self._seen = Scores(0.0, 0.0, 0.0, 0)
        self._tell_network("network", model, epoch)
        self._all("add", row, epoch)

    def _tell_network(self, hook: str, model: nn.Module, *more: Any) -> None:
        """Draws nothing that the run would draw: random states are as before."""
        if any(hasattr(logger, hook) for logger in self.loggers):
            random = checkpoint.random_state()
            try:
                self._all(hook, _network(model), *more)
            finally:
                checkpoint.set_random_state(random)

    def finish(self, results: Mapping[str, Any], epoch: int) -> None:
        """What the run has come to, of its best epoch."""
        self._all("finish", results, epoch)

    def close(self) -> None:
        """Let all write out what waits."""
        self._all("close")
        self.loggers = []


@torch.no_grad()
def _network(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Of each hidden layer its mask, bool, and its scores, where it has some, float32; on the CPU."""
    training = model.training
    model.eval()
    try:
        found = {name: {"mask": mask.cpu()} for name, mask in masks(model).items()}
        for name, layer in hidden_layers(model).items():
            if name in found and layer.scores is not None:
                found[name]["scores"] = layer.scores.detach().float().cpu()
    finally:
        model.train(training)
    return found
