"""What a run shows on its way: a progress bar on a terminal, plain lines elsewhere; and what its loggers are told, and
when. Only the first process of a run has any."""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from hiddennet.nn import hidden_layers, masks
from hiddennet.train import checkpoint
from hiddennet.train.scores import Scores

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_DRAWINGS = 0.1


def clock(seconds: float) -> str:
    """Seconds as 1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Console:
    """The voice of rank 0; the others are silent."""

    def __init__(self, speaks: bool = True, bar: bool | None = None):
        self.speaks = speaks
        self.with_bar = speaks and (sys.stderr.isatty() if bar is None else bar)
        self._bar: tqdm | None = None
        self._line_at = 0.0

    def say(self, *lines: str) -> None:
        """Print lines, above the bar if there is one."""
        for text in lines if self.speaks else ():
            tqdm.write(text) if self._bar is not None else print(text, flush=True)

    def epoch_start(self, epoch: int, epochs: int, batches: int, done: int) -> None:
        """Begin the bar of an epoch of which `done` batches are behind us."""
        self._line_at = time.monotonic()
        if self.with_bar:
            self._bar = tqdm(
                total=batches,
                initial=done,
                desc=f"epoch {epoch + 1}/{epochs}",
                unit="batch",
                leave=False,
                mininterval=SECONDS_BETWEEN_DRAWINGS,
                dynamic_ncols=True,
            )

    def progress(
        self,
        epoch: int,
        batch: int,
        batches: int,
        scores: Scores,
        density: float,
        rate: float,
        left: float,
    ) -> None:
        """Show where we are. rate: images/s; left: seconds to the end of the run."""
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"loss {scores.loss:.3f}, acc {scores.top1:.2%}, density {density:.3f}, "
                f"{rate:,.0f} images/s, {clock(left)} left",
                refresh=False,
            )
            self._bar.update(batch - self._bar.n)
        elif self.speaks and time.monotonic() - self._line_at > SECONDS_BETWEEN_LINES:
            self._line_at = time.monotonic()
            self.say(
                f"epoch {epoch + 1}, batch {batch}/{batches}: loss {scores.loss:.4f}, "
                f"accuracy {scores.top1:.2%}, {rate:,.0f} images/s, {clock(left)} left"
            )

    def epoch_end(self, row: Mapping[str, Any], epochs: int, split: str, left: float) -> None:
        """Close the bar and leave one line."""
        self.close()
        self.say(
            f"epoch {row['epoch']}/{epochs}  loss {row['train_loss']:.4f}  "
            f"train {row['train_top1']:.2%}  {split} {row[f'{split}_top1']:.2%}  "
            f"density {row['density']:.4g}  lr {row['lr']:.4g}  "
            f"{row['images_per_second']:,.0f} images/s  {clock(left)} left"
        )

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


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
