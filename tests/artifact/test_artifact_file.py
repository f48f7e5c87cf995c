"""The artifact as a file: written whole, read back exactly, refused when anything is wrong."""

from __future__ import annotations

import json
import os
import struct

import pytest
import torch
from safetensors.torch import save_file

from hiddennet import container
from hiddennet.container import FORMAT_VERSION, ArtifactError, read, write

HEADER = {"layers": [{"name": "conv", "shape": [2, 3]}], "note": 'quotes " and \\ and \u00e9'}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "bits": torch.randint(0, 256, (37,), dtype=torch.uint8, generator=generator),
        "state.bn.mean": torch.randn(5, generator=generator),
        "state.bn.seen": torch.tensor(7),
        "empty": torch.zeros(0),
    }


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "net.safetensors"
    write(path, HEADER, tensors())
    return path


def test_round_trip(path):
    header, read_back = read(path)
    assert {key: header[key] for key in HEADER} == HEADER
    assert header["format_version"] == FORMAT_VERSION
    assert read_back.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert read_back[name].dtype == tensor.dtype
        assert torch.equal(read_back[name], tensor)


def test_same_content_makes_the_same_bytes(path, tmp_path):
    write(tmp_path / "again", HEADER, tensors())
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_every_single_bit_is_guarded(path):
    data = path.read_bytes()
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(ArtifactError):
                read(path)


def test_every_truncation_is_refused(path):
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ArtifactError):
            read(path)


def test_appended_bytes_are_refused(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match="checksum"):
        read(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"expected a file at .*nowhere"):
        read(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="expected a file at"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"PK\x03\x04" + bytes(100), b"hello " * 50, bytes(64)])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(ArtifactError, match="expected a safetensors file"):
        read(tmp_path / "other")


def test_foreign_safetensors_are_refused(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "foreign", {"format": "pt"})
    with pytest.raises(ArtifactError, match="without a readable one"):
        read(tmp_path / "foreign")


def test_deeply_nested_header_is_refused(tmp_path):
    header = b'{"__metadata__":' + b"[" * 200_000
    (tmp_path / "deep").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ArtifactError):
        read(tmp_path / "deep")


def test_newer_format_asks_for_an_upgrade(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "FORMAT_VERSION", FORMAT_VERSION + 1)
    write(tmp_path / "newer", HEADER, tensors())
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match=f"format version {FORMAT_VERSION} or older.*upgrade"):
        read(tmp_path / "newer")


def test_errors_are_one_sentence(path):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_failed_write_keeps_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        write(path, {"other": 1}, tensors())
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_header_is_plain_json(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    document = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["hiddennet"])
    assert next(iter(document)) == "checksum"
