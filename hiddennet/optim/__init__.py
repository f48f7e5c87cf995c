"""Optimisers of scores: torch's SGD and Adam with regulariser and clamp in the same pass over memory."""

from hiddennet.optim.score import ScoreAdam, ScoreSGD

__all__ = ["ScoreAdam", "ScoreSGD"]
