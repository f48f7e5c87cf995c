"""Other projects' checkpoints are read as data: values come through, code never runs."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from hiddennet.importers.checkpoint import CheckpointError, read_checkpoint


class Payload:
    """Pickles into a call of any function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_and_numpy_scalars(tmp_path, zipped):
    values = {
        "lr": np.float64(0.1),
        "half": np.float16(-1.5),
        "big_endian": np.array([0.25], dtype=">f4")[0],
        "count": np.int64(-3),
        "byte": np.uint8(200),
        "flag": np.bool_(True),
        "text": "Conv4",
        "state": {"weight": torch.arange(4.0)},
    }
    path = tmp_path / "checkpoint.pth"
    torch.save(values, path, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path)
    assert torch.equal(found["state"]["weight"], torch.arange(4.0))
    assert type(found["lr"]) is float and found["lr"] == 0.1
    assert {name: found[name] for name in list(values)[1:-1]} == {
        "half": -1.5,
        "big_endian": 0.25,
        "count": -3,
        "byte": 200,
        "flag": True,
        "text": "Conv4",
    }


def test_older_numpy_name(tmp_path):
    """Checkpoints of 2019 name numpy.core.multiarray; newer numpy names numpy._core."""
    path = tmp_path / "checkpoint.pth"
    torch.save({"lr": np.float64(0.05)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert b"numpy._core.multiarray" in data
    path.write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_checkpoint(path) == {"lr": 0.05}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "function, arguments",
    [
        (os.system, ("touch {mark}",)),
        (eval, ("open({mark!r}, 'w').close()",)),
        (os.mkdir, ("{mark}",)),
        (getattr, (np, "load")),
        (np.load, ("{mark}",)),
    ],
)
def test_code_is_refused(tmp_path, zipped, function, arguments):
    mark = tmp_path / "it_ran"
    arguments = [a.format(mark=str(mark)) if isinstance(a, str) else a for a in arguments]
    path = tmp_path / "evil.pth"
    if function is getattr:
        arguments = [Payload(int, 3), "real"]
    torch.save({"state_dict": Payload(function, *arguments)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"cannot be read safely \(it calls [\w.]+\)"):
        read_checkpoint(path)
    assert not mark.exists()


def test_a_file_of_something_else_is_called_so(tmp_path):
    (tmp_path / "other.pth").write_bytes(b"hello")
    with pytest.raises(CheckpointError, match=r"cannot be read safely \(it is no file of torch.save\)"):
        read_checkpoint(tmp_path / "other.pth")


@pytest.mark.parametrize("value", [np.arange(3.0), np.array("text")[()], np.array([object()], dtype=object)])
def test_other_numpy_values_are_refused(tmp_path, value):
    torch.save({"value": value}, tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "checkpoint.pth")


def test_stand_ins_do_not_outlive_the_reading(tmp_path):
    torch.save({"lr": np.float64(0.1)}, tmp_path / "checkpoint.pth")
    read_checkpoint(tmp_path / "checkpoint.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "checkpoint.pth", weights_only=True)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", bytes(1000)])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"file\.pth") as caught:
        read_checkpoint(tmp_path / "file.pth")
    assert "\n" not in str(caught.value)


def test_truncated_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"weight": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth, got no file"):
        read_checkpoint(tmp_path / "none.pth")
