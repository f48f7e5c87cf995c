"""Imported graph networks as artifacts: of every network and kind the logits stay the original's to the last bit."""

from __future__ import annotations

import pytest

import hiddennet as hn
from hiddennet import artifact
from hiddennet.importers.dnw import convert
from hiddennet.nn import wirings
from hiddennet.nn.edge_rules import KINDS, WITH_EDGES
from tests.importers.original_dnw import same_logits, save, small, theirs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["dnw_static", "dnw_discrete", "dnw_continuous", "dnw_mobilenet", "small"])
def test_round_trip(tmp_path, one_thread, name, kind):
    density = 0.4
    if name in ("dnw_mobilenet", "small"):
        model = small("dnw_mobilenet", kind=kind, width=density, small=name == "small")
    else:
        model = small(name, kind=kind, density=density)
    for graph in wirings(model).values():
        graph.mask()  # fixes the edges of fine_tune
    path = save(tmp_path / "in.pt", theirs(model))
    given = None if kind in WITH_EDGES else density  # their masks are in the file
    convert(path, None, tmp_path / "out", density=given, kind=kind, image_size=16)
    found = hn.load(tmp_path / "out")
    same_logits(found, model)
    header = artifact.read_header(tmp_path / "out")
    assert header["method"] == "dnw" and header["metadata"]["imported"]["last_epoch"] == 159
