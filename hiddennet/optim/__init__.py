"""Optimisers of signs and scores: Bop; torch's SGD and Adam with regulariser and clamp in the same pass over memory."""

from hiddennet.optim.bop import Bop
from hiddennet.optim.deferred import whole_gradients
from hiddennet.optim.score import ScoreSGD
from hiddennet.optim.score_adam import ScoreAdam
from hiddennet.optim.several import Several

__all__ = ["Bop", "ScoreAdam", "ScoreSGD", "Several", "whole_gradients"]
