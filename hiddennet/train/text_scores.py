"""TextScores: the scores of a text, which has a perplexity."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from hiddennet.train.scores import Scores


@dataclass(frozen=True)
class TextScores(Scores):
    """Means over `images` words of a text."""

    @classmethod
    def of(cls, scores: Scores) -> TextScores:
        """The same means."""
        return cls(**asdict(scores))

    @property
    def perplexity(self) -> float:
        """exp(loss): among how many equally likely words the network is in doubt."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    def columns(self, split: str) -> dict[str, float]:
        return super().columns(split) | {f"{split}_perplexity": self.perplexity}
