"""Optimisers of signs and scores: Bop; torch's SGD and Adam with regulariser and clamp in the same pass over memory."""

from hiddennet.optim.bop import Bop
from hiddennet.optim.deferred import whole_gradients
from hiddennet.optim.score import ScoreAdam, ScoreSGD
from hiddennet.optim.several import Several

__all__ = ["Bop", "ScoreAdam", "ScoreSGD", "Several", "whole_gradients"]
