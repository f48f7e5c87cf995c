"""What the small wirings' step is timed against computes the same, and a difference is found."""

from __future__ import annotations

import pytest
import torch

from bench import nets, step_dnw
from bench.harness import Unequal

CPU = torch.device("cpu")


def trainees(what):
    mine, theirs = step_dnw.models_of(what, CPU, quick=True)
    return step_dnw.trainees(mine, theirs, *nets.data("cifar", 2, CPU, channels_last=False))


@pytest.mark.parametrize("what", step_dnw.BARS)
def test_the_original_sequence_is_our_network(what):
    mine, theirs = trainees(what)
    step_dnw.check(mine, theirs, 1e-3, step_dnw.stem_together)
    mine.step()
    theirs.step()
    with torch.no_grad():
        torch.testing.assert_close(mine.loss(), theirs.loss(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name, message", [("weight", "kept edges"), ("conv.weight", "loss")])
def test_other_parameters_are_found(name, message):
    mine, theirs = trainees("static")
    with torch.no_grad():
        theirs.model.get_parameter(name).normal_()
    with pytest.raises(Unequal, match=message):
        step_dnw.check(mine, theirs, 1e-3, step_dnw.stem_together)


def test_other_gradients_are_found(monkeypatch):
    mine, theirs = trainees("discrete")
    monkeypatch.setattr(step_dnw.ChosenEdges, "backward", staticmethod(lambda ctx, g: (g * 1.01, None)))
    with pytest.raises(Unequal, match="gradients of weight"):
        step_dnw.check(mine, theirs, 1e-3, step_dnw.stem_together)
