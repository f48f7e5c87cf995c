"""What the runtime cannot do is said before anything is written; what comes in wrongly, in one sentence."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import artifact, cli, container, models
from tests.runtime.common import rt, saved

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore")


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.lstm(x)[0][:, -1])


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.fc = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.mix(x, x, x)[0].mean(1))


class Sorting(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8))

    def forward(self, x):
        return self.inner(x).sort(1)[0]


class Moving(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return self.fc(x).reshape(-1, 4)


class Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return self.fc(x) + torch.randn(8)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.fc(x)


class Scaled(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.fc, self.by = nn.Linear(8, 8), by

    def forward(self, x):
        return self.by(self.fc(x))


REFUSED = {
    "random": (Drawing, (8,), "got randn that draws random numbers"),
    "buffer": (Counting, (8,), "got one that changes calls"),
    "infinity": (lambda: Scaled(lambda x: x * math.inf), (8,), "got mul.* of inf"),
    "not a number": (lambda: Scaled(lambda x: x + math.nan), (8,), "got add.* of nan"),
    "zero": (lambda: Scaled(lambda x: x / 0), (8,), "got div.* by zero"),
    "lstm": (Recurrent, (5, 8), "lstm"),
    "attention": (Attending, (5, 8), "linear on 3 dimensions|transpose|view|scaled_dot_product_attention"),
    "sort": (Sorting, (8,), "got sort"),
    "batch": (Moving, (8,), "first dimension is not the batch"),
    "transposed": (
        lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.ConvTranspose2d(2, 2, 3)),
        (2, 8, 8),
        "conv_transpose2d",
    ),
    "volume": (lambda: nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten()), (1, 4, 4, 4), "2 to 4 dimensions"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_runtime_does_not_have_is_refused_by_name(tmp_path, name):
    make, shape, says = REFUSED[name]
    model = hn.hide(make(), hn.Generated("kaiming_normal"), hn.TopK(0.5)) if name != "attention" else make()
    with pytest.raises(ValueError, match=says) as caught:
        hn.export(model, tmp_path / "net", runtime=True, example=torch.zeros(2, *shape))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_example_is_asked_for_where_the_network_does_not_say_its_input(tmp_path):
    with pytest.raises(ValueError, match="expected an example of the input"):
        hn.export(hn.hide(nn.Sequential(nn.Linear(4, 2))), tmp_path / "net", runtime=True)


@pytest.mark.parametrize("example", [np.zeros((1, 8), np.float32), (torch.zeros(1, 8),), [0.0]], ids=type)
def test_an_example_that_is_no_tensor_is_one_sentence(tmp_path, example):
    with pytest.raises(TypeError, match="expected example to be a tensor, batch first, got (ndarray|tuple|list)"):
        hn.export(hn.hide(nn.Sequential(nn.Linear(8, 2))), tmp_path / "net", runtime=True, example=example)


@pytest.mark.parametrize("runtime", [True, False])
def test_a_header_with_an_infinity_or_a_nan_is_not_written(tmp_path, runtime):
    model = hn.hide(nn.Sequential(nn.Linear(8, 2)))
    with pytest.raises(
        ValueError, match="artifact: expected finite numbers in the header, got what JSON does not have"
    ):
        hn.export(
            model, tmp_path / "net", metadata={"loss": math.nan}, runtime=runtime,
            example=torch.zeros(1, 8) if runtime else None,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def conv(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "net"
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 5))
    torch.manual_seed(0)
    saved(hn.hide(model, hn.Generated("kaiming_normal"), hn.TopK(0.5)).eval(), path, (3, 6, 6))
    return path


WRONG = {
    "dtype": (np.zeros((1, 3, 6, 6)), TypeError, "expected float32, got float64"),
    "no array": ([[1.0]], TypeError, "expected an array of numpy, got list"),
    "shape": (
        np.zeros((1, 6, 6, 3), np.float32),
        ValueError,
        r"expected nchw of shape \[batch, 3, 6, 6\], got \[1, 6, 6, 3\]",
    ),
    "no batch": (np.zeros((3, 6, 6), np.float32), ValueError, r"got \[3, 6, 6\]"),
    "tensor": (torch.zeros(1, 3, 6, 6), TypeError, "expected an array of numpy, got Tensor"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_inputs_are_one_sentence(conv, name):
    x, error, says = WRONG[name]
    with pytest.raises(error, match=says):
        rt.load(conv)(x)


def test_odd_inputs_are_taken(conv):
    net = rt.load(conv, bf16=False)
    x = np.random.default_rng(0).standard_normal((5, 3, 6, 6), dtype=np.float32)
    want = net(x)
    assert net(x[:0]).shape == (0, 5)
    assert np.array_equal(net(np.asfortranarray(x)), want)
    assert np.array_equal(net(np.repeat(x, 2, 0)[::2]), want)
    assert np.array_equal(net(x[..., ::-1])[:, 0], net(np.ascontiguousarray(x[..., ::-1]))[:, 0])
    x[2, 0, 3, 3] = np.nan
    got = net(x)
    assert np.isnan(got[2]).all() and np.array_equal(got[[0, 1, 3, 4]], want[[0, 1, 3, 4]])
    x[2] = np.inf
    assert not np.isfinite(net(x)[2]).all()


def test_batches_of_any_size_are_the_same_network(conv):
    net = rt.load(conv, bf16=False)
    x = np.random.default_rng(0).standard_normal((33, 3, 6, 6), dtype=np.float32)
    whole = net(x)
    for size in (1, 2, 3, 7, 16, 33):
        np.testing.assert_allclose(net(x[:size]), whole[:size], rtol=1e-4, atol=1e-5)


def test_threads_give_the_same_bits(conv):
    x = np.random.default_rng(0).standard_normal((33, 3, 6, 6), dtype=np.float32)
    one, two = (rt.load(conv, threads=threads, bf16=False) for threads in (1, 2))
    assert (one.threads, two.threads) == (1, 2)
    assert np.array_equal(one(x), two(x))


def test_a_forked_process_runs_on(conv):
    net = rt.load(conv, threads=2, bf16=False)
    x = np.ones((4, 3, 6, 6), np.float32)
    want = net(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(net(x), want) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


FORKED_DURING_CALLS = """
import os, sys, threading, numpy as np, hiddennet.runtime as rt
net = rt.load(sys.argv[1], threads=2, bf16=False)
x = np.ones((64, 3, 6, 6), np.float32)
want, ends = net(x), []
def call():
    while not ends:
        for count in range(1, 8):  # more sizes than are kept: plans are made, and thrown away
            net(x[:count])
other = threading.Thread(target=call)
other.start()
bad = 0
for _ in range(30):
    child = os.fork()
    if child == 0:
        import signal
        signal.alarm(20)
        os._exit(0 if np.array_equal(net(x), want) and net.layers[0].plan and np.array_equal(net(x), want) else 1)
    bad += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    if bad:
        break
ends.append(1)
other.join()
sys.exit(bad)
"""


def test_a_process_forked_while_another_thread_is_inside_a_call_runs_on(conv):
    command = [sys.executable, "-c", FORKED_DURING_CALLS, conv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_threads_are_any_integer(conv):
    assert rt.load(conv, threads=np.int64(2)).threads == 2


@pytest.mark.parametrize("name", [b"net\xff", "n\u00e9t \u2603".encode()])
def test_paths_of_any_bytes(conv, tmp_path, name):
    path = os.fsencode(tmp_path) + b"/" + name
    with pytest.raises(rt.Error, match="expected a file at"):
        rt.load(path)
    Path(os.fsdecode(path)).write_bytes(conv.read_bytes())
    assert rt.load(path).input_shape == rt.load(os.fsdecode(path)).input_shape == (3, 6, 6)


def test_a_path_with_a_nul_is_refused(conv):
    with pytest.raises(rt.Error, match="expected a file at a path without NUL, got"):
        rt.load(f"{conv}\0more")


@pytest.mark.parametrize(
    "options",
    [*({"threads": wrong} for wrong in (0, -1, True, 1.5, 5000, 2**40)), {"bf16": "yes"}, {"bf16": None}],
)
def test_wrong_options_are_one_sentence(conv, options):
    with pytest.raises(ValueError, match="^hiddennet.runtime: expected"):
        rt.load(conv, **options)


def test_files_that_are_none_are_one_sentence(tmp_path, conv):
    with pytest.raises(rt.Error, match="expected a file at"):
        rt.load(tmp_path / "none")
    with pytest.raises(rt.Error, match="expected a file at"):
        rt.load(tmp_path)
    for data in (b"", b"hello", os.urandom(3000), conv.read_bytes()[:-5]):
        (tmp_path / "bad").write_bytes(data)
        with pytest.raises(ValueError, match="^hiddennet.runtime: expected") as caught:
            rt.load(tmp_path / "bad")
        assert "\n" not in str(caught.value)
    hn.export(hn.hide(nn.Sequential(nn.Linear(4, 2))), tmp_path / "plain")
    with pytest.raises(rt.Error, match="without a graph; write it with"):
        rt.load(tmp_path / "plain")


WIDENED = {  # nodes that make pixels of features, or rows of lines, which no shape tells
    "adaptive_pool": ([8], {"op": "adaptive_average_pool", "size": [500, 500]}),
    "pad": ([8], {"op": "pad", "pads": [0, 0, 3000, 3000]}),
    "max_pool": ([3, 1000], {"op": "max_pool", "kernel": [2000, 1], "pads": [1000, 0, 1000, 0]}),
    "conv": ([3, 1000], {"op": "conv", "weight": {"tensor": "state.weight"}, "pads": [1000, 0, 1000, 0]}),
    "crop": ([3, 1000], {"op": "pad", "pads": [1, 0, 1, 0]}),
}


@pytest.mark.parametrize("name", WIDENED)
def test_a_file_whose_values_have_more_pixels_than_their_shape_is_refused(tmp_path, conv, name):
    shape, node = WIDENED[name]
    header, tensors = container.read(conv)
    header["graph"].update(input=shape, nodes=[{"in": [0], "name": "wide", **node}], output=1)
    del header["checksum"]
    container.write(tmp_path / "net", header, {**tensors, "state.weight": torch.ones(4, 3, 1)})
    with pytest.raises(rt.Error, match="^hiddennet.runtime: expected wide to make a value of (features|lines), got"):
        rt.load(tmp_path / "net")


def test_layers_and_summary(conv):
    net = rt.load(conv, bf16=False)
    assert [one.plan for one in net.layers] == ["", ""]
    net(np.zeros((2, 3, 6, 6), np.float32))
    first, last = net.layers
    assert (first.name, first.shape, last.name, last.shape) == ("0", (4, 3, 3, 3), "3", (5, 64, 1, 1))
    assert first.density == 0.5 and first.plan and first.bytes > 0
    assert len(net.summary().splitlines()) == 3
    assert net.input_shape == (3, 6, 6) and net.output_shape == (5,)


WITHOUT_TORCH = """
import sys, json
for name in ("torch", "safetensors", "pydantic", "torchvision"):
    sys.modules[name] = None  # importing it fails
import numpy as np
import hiddennet.runtime as rt
net = rt.load(sys.argv[1], bf16=False)
print(json.dumps(net(np.ones((2, 3, 6, 6), np.float32)).tolist()))
"""


def test_a_process_in_which_torch_cannot_be_imported(conv):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, conv], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    want = rt.load(conv, bf16=False)(np.ones((2, 3, 6, 6), np.float32))
    assert np.array_equal(np.array(json.loads(done.stdout), np.float32), want)


def test_what_is_measured_is_kept_for_later_processes(conv, tmp_path, monkeypatch):
    code = "import sys, numpy as np, hiddennet.runtime as rt; n = rt.load(sys.argv[1], bf16=False)\n"
    code += "n(np.ones((2, 3, 6, 6), np.float32)); print(n.layers[0].plan)"
    environment = {**os.environ, "HIDDENNET_PLANS": "measure", "XDG_CACHE_HOME": str(tmp_path)}
    said, kept = [], tmp_path / "hiddennet" / "runtime-plans.tsv"
    for _ in range(2):
        command = [sys.executable, "-c", code, conv]
        said.append(
            subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
        )
        lines = kept.read_text().splitlines()
    assert said[0] == said[1] and len(lines) == 2
    kept.write_text("nonsense\n" + lines[0][:40] + "\n" + lines[1].replace("|", "|x") + "\n")
    again = subprocess.run([sys.executable, "-c", code, conv], cwd=ROOT, env=environment, check=True)
    assert again.returncode == 0
    bad = subprocess.run(
        [sys.executable, "-c", code, conv], cwd=ROOT, env={**environment, "HIDDENNET_PLANS": "best"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "expected HIDDENNET_PLANS to be" in bad.stderr


def test_a_model_of_ours_needs_no_example(tmp_path):
    hn.export(hn.hide(models.build("digits_conv", num_classes=10)), tmp_path / "net", runtime=True)
    assert rt.load(tmp_path / "net").input_shape == (1, 8, 8)


def test_the_command_line_writes_such_a_file_of_an_artifact(tmp_path, capsys):
    hn.export(hn.hide(models.build("digits_conv", num_classes=10)), tmp_path / "plain", metadata={"data": "digits"})
    assert cli.main(["export", str(tmp_path / "plain"), "--runtime", str(tmp_path / "net")]) == 0
    assert rt.load(tmp_path / "net").output_shape == (10,)
    assert artifact.read_header(tmp_path / "net")["metadata"]["data"] == "digits"
    assert cli.main(["export", str(tmp_path / "plain"), "--runtime", str(tmp_path / "net"), "--compact"]) == 1
    assert "expected --runtime FILE without --compact, got both" in capsys.readouterr().err
