"""Optimisers of scores: torch's SGD and Adam with regulariser and clamp in the same pass over memory."""

from hiddennet.optim.score import ScoreAdam, ScoreSGD
from hiddennet.optim.several import Several

__all__ = ["ScoreAdam", "ScoreSGD", "Several"]
