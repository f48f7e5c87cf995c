"""What a run shows on its way: a progress bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

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

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self.speaks:
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
