"""Every benchmark runs, and refuses to time what is not equal. No times are asserted here."""

from __future__ import annotations

import importlib
import json
import sys

import pytest
import torch

from bench.__main__ import NAMES, words
from bench.harness import Unequal


@pytest.mark.parametrize("name", NAMES)
def test_runs(name, monkeypatch, tmp_path):
    path = tmp_path / "rows.json"
    module, *of = words(name)
    command = [name, *of, "--quick", "--device", "cpu", "--json", str(path)]
    if name == "accuracy":
        command += ["--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", command)
    importlib.import_module(f"{module}.__main__" if of else module).main()
    environment, *rows = map(json.loads, path.read_text().splitlines())
    assert environment["environment"]["device_type"] == "cpu"
    assert rows
    for row in rows:
        assert row["bench"] == name and row["quick"]
        numbers = [row[part] for part in ("median_s", "ratio", "value") if part in row]
        assert numbers, row


def test_step_is_not_timed_when_the_networks_differ():
    from bench import nets

    device = torch.device("cpu")
    mine, dense = nets.trainees("conv4", 2, device, channels_last=False)
    theirs = nets.original_trainee(mine, "conv4")
    nets.check_dense(mine, dense, 1e-4)
    nets.check_original(mine, theirs, 1e-4)
    with torch.no_grad():
        nets.weighted(dense.model)[-1].weight.mul_(1.01)
        nets.weighted(theirs.model)[0].scores.mul_(-1)
    with pytest.raises(Unequal, match="against dense"):
        nets.check_dense(mine, dense, 1e-4)
    with pytest.raises(Unequal, match="score gradient of layer 0"):
        nets.check_original(mine, theirs, 1e-4)


@pytest.mark.parametrize("density", [0.3, 0.02])
def test_the_original_has_the_density_of_ours(density):
    from bench import nets

    model = nets.hidden("conv2", torch.device("cpu"), density=density)
    mine, _ = nets.trainees("conv2", 2, torch.device("cpu"), channels_last=True, model=model)
    nets.check_original(mine, nets.original_trainee(mine, "conv2"), 1e-4)


def test_a_training_step_saves_no_mask_and_no_second_product():
    """What autograd keeps of the size of a weight is the effective weight alone."""
    from bench import memory, nets

    model = memory.build("fc", 0.5, 28, torch.device("cpu"), memory.BARRED)
    x = torch.randn(1, 1, 28, 28, requires_grad=True)
    saved = memory.saved_bytes(model, lambda: model(x).sum())
    assert saved == 4 * sum(layer.scores.numel() for layer in nets.hidden_list(model))


def test_memory_ledger_counts_what_is_known():
    from bench import memory

    memory.check_ledger(torch.device("cpu"))
