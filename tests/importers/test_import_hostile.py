"""Checkpoints that were changed, broken or made to do harm: one sentence each, and no memory beyond the file's."""

from __future__ import annotations

import re
import zipfile

import pytest
import torch

from hiddennet import cli
from hiddennet.importers import dnw, hidden_networks, peek_a_boo
from hiddennet.importers.checkpoint import CheckpointError, read_checkpoint
from tests.importers import original, original_peek_a_boo


@pytest.fixture
def path(tmp_path):
    return tmp_path / "in.pth"


def test_a_changed_bit_is_noticed(path):
    torch.save({"weight": torch.randn(200)}, path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        member = next(info for info in archive.infolist() if info.filename.endswith("/data/0"))
    first = data.index(torch.load(path)["weight"].numpy().tobytes())
    assert first > member.header_offset
    for byte in range(first, first + 800, 97):
        changed = bytearray(data)
        changed[byte] ^= 1
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match="data/0 does not match its checksum"):
            read_checkpoint(path)


def test_a_file_without_checksums_is_called_so(path, tmp_path, capsys):
    state = original.state_of("Conv2", width=0.25)
    original.save(path, "Conv2", state, zipped=False)
    with pytest.warns(UserWarning, match=r"in\.pth is in torch's old format, without checksums"):
        read_checkpoint(path)
    arguments = ["import", "hidden-networks", str(path), "--density", "0.5", "-o", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().err.startswith("note: import: ")


def test_an_archive_that_unfolds_is_refused(path):
    torch.save({"weight": torch.zeros(2**20)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointError, match="unfolds to more than its size"):
        read_checkpoint(path)


def quantised(weight):
    return torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)


WRONG = {
    "complex": lambda w: w.to(torch.complex64),
    "int": lambda w: w.int(),
    "bool": lambda w: w.bool(),
    "sparse": lambda w: w.to_sparse(),
    "quantised": quantised,
    "meta": lambda w: w.to("meta"),
    "NaN": lambda w: torch.full_like(w, float("nan")),
    "infinite": lambda w: torch.full_like(w, -float("inf")),
    "beyond float32": lambda w: torch.full_like(w, 1e300, dtype=torch.float64),
    "unfolded": lambda w: torch.ones(1, dtype=w.dtype).expand(w.shape),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("system", [hidden_networks, peek_a_boo, dnw])
def test_weights_that_are_no_real_numbers(path, system, kind):
    if system is hidden_networks:
        state, key, arguments = original.state_of("Conv2", width=0.25), "convs.2.weight", {"density": 0.5}
        arch = "Conv2"
    elif system is peek_a_boo:
        state, key, arch, arguments = original_peek_a_boo.state_of("Conv4"), "convs.0.weight", "Conv4", {}
    else:
        state = {"conv1.weight": torch.randn(4, 3, 3, 3), "layers.0.conv2.weight": torch.randn(8, 4, 1, 1)}
        key, arch, arguments = "conv1.weight", None, {}
    state[key] = WRONG[kind](state[key])
    torch.save({"state_dict": state}, path)
    said = rf"import: expected {re.escape(key)} of .* to be a dense tensor of real numbers, got"
    with pytest.raises(CheckpointError, match=said) as caught:
        system.read(path, arch, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("width", [0.1, 0.3, 0.35, 1 / 3])
def test_widths_whose_first_layer_does_not_tell_them(path, width):
    original.save(path, "cResNet18", original.state_of("cResNet18", width=width))
    assert hidden_networks.read(path, density=0.5).architecture["width"] == pytest.approx(width, abs=0.02)
    state = original_peek_a_boo.state_of("ResNet18", width=width)
    original_peek_a_boo.save_cifar(path, state)
    assert peek_a_boo.read(path, "ResNet18").architecture["width"] == pytest.approx(width, abs=0.02)


def test_names_that_count_to_millions(path):
    tensors = {"graph.weight": torch.ones(4, 4, 1, 1), "downsample.0.weight": torch.ones(2, 1, 1, 1)}
    state = {f"layers.0.{name}": tensor for name, tensor in tensors.items()}
    state |= {"conv1.weight": torch.ones(2, 3, 3, 3), "linear.weight": torch.ones(3, 2)}
    state |= {"layers.0.norm.9999999.weight": torch.ones(1)}
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="expected a checkpoint of dnw_mobilenet with the numbers 0 to 0"):
        dnw.read(path, density=0.5)


def test_wrapped_models(path):
    state = original.state_of("Conv2", width=0.25)
    original.save(path, "Conv2", {f"_orig_mod.module.{key}": value for key, value in state.items()})
    assert hidden_networks.read(path, density=0.5).architecture["name"] == "conv2"
