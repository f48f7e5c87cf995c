"""What the MobileNet-like wiring's step is timed against computes the same, and a difference is found."""

from __future__ import annotations

import pytest
import torch

from bench import originals_dnw, step_dnw, step_dnw_mobilenet
from bench.harness import Unequal

CPU = torch.device("cpu")


def check(mine, theirs) -> None:
    step_dnw.check(mine, theirs, step_dnw_mobilenet.KINKS, str)


@pytest.fixture(scope="module")
def trainees():
    return step_dnw_mobilenet.untied(4, 48, CPU)


def test_the_original_sequence_is_our_network(trainees):
    mine, theirs = trainees
    check(mine, theirs)
    mine.step()
    theirs.step()
    with torch.no_grad():
        torch.testing.assert_close(mine.loss(), theirs.loss(), rtol=1e-5, atol=0)


def test_other_gradients_are_found(trainees, monkeypatch):
    chosen = originals_dnw.ChosenEdges
    monkeypatch.setattr(chosen, "backward", staticmethod(lambda ctx, gradient: (gradient * 1.1, None)))
    with pytest.raises(Unequal, match="gradients of layers.0.weight"):
        check(*step_dnw_mobilenet.untied(4, 48, CPU))


def test_other_parameters_are_found():
    mine, theirs = step_dnw_mobilenet.untied(4, 48, CPU)
    with torch.no_grad():
        theirs.model.layers[1].conv.weight.normal_()
    with pytest.raises(Unequal, match="loss"):
        check(mine, theirs)
    with torch.no_grad():
        theirs.model.layers[2].weight.normal_()
    with pytest.raises(Unequal, match="kept edges of graph 2"):
        check(mine, theirs)
