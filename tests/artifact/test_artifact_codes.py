"""Format 2: masks near the entropy of their density; files of format 1 where no code is shorter; damage."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import container
from hiddennet.artifact import ArtifactError, read_header, sizes
from tests.checks import assert_equal


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(16, 64, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(256, 512, bias=False))


def hidden(density: float) -> nn.Module:
    return hn.hide(net(), hn.Generated(seed=1), hn.TopK(density)).eval()


@pytest.mark.parametrize("density", [0.01, 0.1, 0.3, 0.5, 0.9])
def test_bytes_and_logits(density, tmp_path):
    model, path, x = hidden(density), tmp_path / "a", torch.randn(2, 16, 4, 4)
    hn.export(model, path)
    header, tensors = container.read(path)
    weights = header["hidden_weights"]
    held = sum(tensors[name].numel() for name in ("mask_bits", "mask_codes") if name in tensors)
    need = -(density * math.log2(density) + (1 - density) * math.log2(1 - density))
    assert held <= 1.03 * need * weights / 8 + 2 * 16  # a code's own bytes, in each layer
    assert header["format_version"] == (1 if density == 0.5 else 2)
    again = hn.load(path, net())
    for name, mask in hn.masks(model).items():
        assert_equal(hn.masks(again)[name], mask, name)
    assert_equal(again(x), model(x))
    assert sizes(path)["artifact_bytes"] == path.stat().st_size


def test_a_wiring_and_the_kinds_of_masks(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 64, 1), hn.nn.Wiring(64, 64, 0.05)).eval()
    hn.export(model, tmp_path / "w")
    layers = read_header(tmp_path / "w")["layers"]
    assert 8 < layers[0]["code"] < 0.75 * 64 * 64 / 8
    again = hn.load(tmp_path / "w", nn.Sequential(nn.Conv2d(3, 64, 1), hn.nn.Wiring(64, 64, 0.05)))
    x = torch.randn(2, 3, 5, 5)
    assert_equal(again(x), model(x))
    mixed = hn.hide(net(), rule=lambda name, _: hn.TopK(0.5) if name == "0" else hn.TopK(0.05)).eval()
    hn.export(mixed, tmp_path / "m")
    assert ["code" in layer for layer in read_header(tmp_path / "m")["layers"]] == [False, True]
    assert_equal(hn.load(tmp_path / "m", net())[3].mask(), mixed[3].mask())


def rewritten(path, change) -> None:
    """The file with its header and tensors changed, and a checksum that fits."""
    header, tensors = container.read(path)
    change(header, tensors)
    container.write(path, {key: value for key, value in header.items() if key != "checksum"}, tensors)


def _other_bytes(header, tensors) -> None:
    tensors["mask_codes"] = torch.randint(256, tensors["mask_codes"].shape, dtype=torch.uint8)


def _longer(header, tensors) -> None:
    header["layers"][0]["code"] += 4


def _fewer_kept(header, tensors) -> None:
    header["layers"][0]["kept"] -= 1


def _no_code(header, tensors) -> None:
    header["layers"][0]["code"] = 0


def _cut(header, tensors) -> None:
    tensors["mask_codes"] = tensors["mask_codes"][:-4]


def _vast(header, tensors) -> None:
    header["layers"][0] |= {"shape": [2**15, 2**14], "kept": 0, "code": 8}
    header["hidden_weights"] = 2**29 + 256 * 512
    header["dense_bytes"] = 4 * header["hidden_weights"]


DAMAGE = {
    "other bytes": (_other_bytes, "expected the code of a mask in layer 0, got other bytes"),
    "a longer code": (_longer, "expected the code of a mask in layer 0|numbers in mask_codes"),
    "fewer kept": (_fewer_kept, "expected the code of a mask in layer 0, got other bytes"),
    "no code": (_no_code, "layers.0.code"),
    "cut": (_cut, "expected at least .* numbers in mask_codes"),
    "vast": (_vast, "to hold a bit or more of all but"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_sentence(name, tmp_path):
    change, message = DAMAGE[name]
    hn.export(hidden(0.1), tmp_path / "a")
    rewritten(tmp_path / "a", change)
    with pytest.raises(ArtifactError, match=message) as raised:
        hn.load(tmp_path / "a", net())
    assert "\n" not in str(raised.value)


def test_masks_of_next_to_nothing(tmp_path):
    model = hn.hide(nn.Sequential(nn.Linear(2048, 1024, bias=False)), rule=hn.TopK(0.0)).eval()
    hn.export(model, tmp_path / "a")
    assert (tmp_path / "a").stat().st_size < 5000
    again = hn.load(tmp_path / "a", nn.Sequential(nn.Linear(2048, 1024, bias=False)))
    assert not again[0].mask().any()
