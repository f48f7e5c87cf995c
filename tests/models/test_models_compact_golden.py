"""Compact networks against what the original computed with its dead nodes and without them, in float64."""

from __future__ import annotations

import pytest
import torch

import hiddennet as hn
from hiddennet.models.dnw import MobileNetConfig, MobileNetGraph, from_original
from tests.golden import Golden

pytestmark = pytest.mark.isa

RATES = ("0.3", "0.6", "0.65", "0.8")
STAGES = ((4, 6, 1, 1), (6, 8, 2, 2), (8, 10, 2, 3))


@pytest.fixture(scope="module")
def golden():
    return Golden("dnw")


def array(golden, key):
    return torch.as_tensor(golden[key])


def tiny(golden, rate):
    prefix = f"G/p{rate}/param/"
    config = MobileNetConfig(width=1 - float(rate), compat=True, stages=STAGES, num_classes=5, image_size=16)
    model = MobileNetGraph(config).double()
    state = {key: torch.as_tensor(value) for key, value in golden.below(prefix).items()}
    model.load_state_dict(from_original(model, state))
    return model.eval()


@pytest.mark.parametrize("rate", RATES)
def test_logits_are_the_whole_networks(golden, rate):
    model, x = tiny(golden, rate), array(golden, f"G/p{rate}/x")
    compact = hn.compact(model)
    torch.testing.assert_close(compact(x), array(golden, f"G/p{rate}/raw_full"), rtol=0, atol=1e-12)
    torch.testing.assert_close(compact(x), array(golden, f"G/p{rate}/logits_eval"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rate", RATES)
def test_what_is_folded_is_what_the_original_dropped(golden, rate):
    """The original drops final nodes that hear nothing; here they are in the bias."""
    model = tiny(golden, rate)
    compact = hn.compact(model)
    folded = compact.classifier.bias - model.linear.bias
    dropped = array(golden, f"G/p{rate}/raw_full") - array(golden, f"G/p{rate}/raw_fast")
    heard = array(golden, f"G/p{rate}/output_with_input2").bool()
    dead = 10 - compact.features
    assert dead >= int((~heard).sum())  # here also those that hear only nodes that send nothing
    if dead == int((~heard).sum()):
        torch.testing.assert_close(folded.expand(2, -1), dropped, rtol=0, atol=1e-12)
        assert bool(folded.any()) == bool(dropped.abs().max() > 1e-14)


@pytest.mark.parametrize("rate", RATES)
def test_without_constants_it_is_the_original_fast_network(golden, rate):
    model, x = tiny(golden, rate), array(golden, f"G/p{rate}/x")
    dead = ~array(golden, f"G/p{rate}/output_with_input2").bool()
    model.bn.bias.data[dead] = 0
    model.bn.running_mean[dead] = 0
    logits = hn.compact(model)(x)
    torch.testing.assert_close(logits, array(golden, f"G/p{rate}/zeroed_full"), rtol=0, atol=1e-12)
    torch.testing.assert_close(logits, array(golden, f"G/p{rate}/zeroed_fast"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rate", RATES)
def test_no_node_is_kept_that_the_original_removes(golden, rate):
    compact = hn.compact(tiny(golden, rate))
    smaller = 0
    for i, stage in enumerate(compact.stages):
        has_output = array(golden, f"G/p{rate}/has_output{i}").bool()
        sizes = array(golden, f"G/p{rate}/fast_block_sz{i}").tolist()
        assert stage.sources <= int(has_output.sum()) == sum(sizes[:-1])
        assert stage.inputs <= int(array(golden, f"G/p{rate}/input_with_output{i}").sum()) == sizes[0]
        assert stage.blocks[-1] <= sizes[-1]
        smaller += int(has_output.sum()) - stage.sources
    assert smaller > 0  # one pass leaves nodes that only feed removed ones
