"""What a reader may count on: a step takes few calls in few files, and nobody asks what kind a rule is."""

from __future__ import annotations

import ast
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import hiddennet as hn
from hiddennet import config
from hiddennet.methods import edge_popup
from hiddennet.registry import REGISTRIES
from hiddennet.train.build import build_model
from hiddennet.train.engine import Engine
from hiddennet.train.ranks import Ranks
from hiddennet.train.scores import Meter

PACKAGE = Path(hn.__file__).parent


def calls_of(action: Callable[[], object]) -> list[str]:
    """The file of every call of a Python function of the package while `action` runs, the backward's thread too."""
    found: list[str] = []

    def look(frame, event, _) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            found.append(os.path.relpath(frame.f_code.co_filename, PACKAGE))

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        action()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


def test_a_step_of_two_layers_takes_at_most_100_calls():
    layers = nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10, bias=False)
    model = hn.hide(nn.Sequential(*layers))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1, momentum=0.9)
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    step()
    assert 10 < len(calls_of(step)) <= 100


def test_an_edge_popup_step_is_read_in_at_most_18_files():
    """The method's file, and every file with a function that a step of a run calls, down to the op."""
    settings = config.load("digits", ["train.device=cpu"])
    model, method = build_model(settings, 10, 1, 8)
    engine = Engine(model.train(), settings, torch.device("cpu"), Ranks(), method)
    x, y = torch.randn(8, 1, 8, 8), torch.arange(8)
    files = set(calls_of(lambda: engine.step(x, y, Meter(torch.device("cpu")), 8)))
    files.add(os.path.relpath(edge_popup.__file__, PACKAGE))
    lines = sum(len((PACKAGE / name).read_text().splitlines()) for name in files)
    assert {"train/engine.py", "nn/rules.py", "ops/masked_weight.py"} < files
    assert len(files) <= 18 and lines <= 2600, sorted(files)


def test_nobody_asks_what_kind_a_rule_or_a_source_is():
    """No isinstance on a rule or source class outside the file that defines it: the layer asks, and they answer."""
    homes = {
        thing.__name__: Path(sys.modules[thing.__module__].__file__).resolve()
        for kind in ("rule", "source")
        for thing in REGISTRIES[kind].values()
        if thing.__module__.startswith("hiddennet.")
    }
    assert {"TopK", "Grouped", "Stored", "Redrawn"} <= homes.keys()
    asked = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"):
                continue
            names = {
                part.id if isinstance(part, ast.Name) else getattr(part, "attr", "") for part in ast.walk(node.args[1])
            }
            asked += [(str(path), name) for name in names & homes.keys() if homes[name] != path.resolve()]
    assert not asked
