"""Optimisers of one pass over memory: SGD and Adam of scores with regulariser and clamp, and Bop of signs."""

from hiddennet.optim.bop import Bop
from hiddennet.optim.score import ScoreAdam, ScoreSGD

__all__ = ["Bop", "ScoreAdam", "ScoreSGD"]
