"""What importing promises: no torchvision, no nvtx needed; the libraries load and say what is missing."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hiddennet as hn
from build_tools.cuda_toolkit import find_toolkit
from hiddennet import _load, env, trace

ROOT = Path(__file__).resolve().parents[1]

# an editable install's finder would find the checkout's extension from anywhere
WITHOUT_EDITABLE = """
import sys
sys.meta_path = [f for f in sys.meta_path if not f.__module__.startswith("__editable__")]
"""


def _run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_import_needs_neither_torchvision_nor_nvtx():
    done = _run(
        "import sys; sys.modules['nvtx'] = None; sys.modules['torchvision'] = None\n"
        "import hiddennet as hn, torch\n"
        "from hiddennet import trace\n"
        "assert not trace.enabled\n"
        "with trace.range('step'): print(hn.ops.topk_mask(torch.tensor([1., 2.]), 1).tolist())"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[False, True]"


def test_the_kernels_load_where_torch_has_cuda_even_without_a_gpu():
    built = list((ROOT / "hiddennet").glob("_C_cuda*.so"))
    if not built:
        pytest.skip(f"_C_cuda was not built: {_load.cuda_status}")
    if torch.version.cuda is None:
        assert _load.cuda_status.startswith("not loaded")
    else:
        assert _load.cuda_status == "loaded"


NVML = """
#include <string.h>
static const char* kNames[] = {"Tesla T4", "Tesla V100", "H200"};
static const int kVersions[][2] = {{7, 5}, {7, 0}, {9, 0}};
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned* n) { *n = DEVICES; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void** h) { *h = (void*)(long)(i + 1); return 0; }
int nvmlDeviceGetCudaComputeCapability(void* h, int* major, int* minor) {
  *major = kVersions[(long)h - 1][0];
  *minor = kVersions[(long)h - 1][1];
  return 0;
}
int nvmlDeviceGetName(void* h, char* name, unsigned n) { strncpy(name, kNames[(long)h - 1], n); return 0; }
"""


@pytest.mark.parametrize("devices", [2, 3])
def test_a_gpu_too_old_for_the_kernels_is_one_sentence_and_the_cpu_works(devices, tmp_path):
    if _load.cuda_status != "loaded":
        pytest.skip(f"no kernels to be too new: {_load.cuda_status}")
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here to make a driver's library with")
    (tmp_path / "nvml.c").write_text(NVML)
    library = [f"-DDEVICES={devices}", str(tmp_path / "nvml.c"), "-o", str(tmp_path / "libnvidia-ml.so.1")]
    subprocess.run(["gcc", "-shared", "-fPIC", *library], check=True)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "always",
            "-c",
            "import hiddennet as hn, torch\n"
            "print(hn._load.cuda_status)\n"
            "print(hn.ops.topk_mask(torch.tensor([1., 2.]), 1).tolist())",
        ],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    status, mask = done.stdout.splitlines()
    assert mask == "[False, True]"
    assert "Tesla T4 (sm_75), Tesla V100 (sm_70): expected compute capability 8.0 or newer" in status
    assert ("H200 (sm_90)" in status) == (devices == 3)
    assert done.stderr.count("RuntimeWarning: hiddennet: the CUDA kernels do not run on Tesla T4") == (devices == 2)


def test_dir_shows_what_is_imported_when_first_used():
    code = (
        "import sys, hiddennet as hn\n"
        "assert set(hn.__all__) <= set(dir(hn)) and 'hiddennet.models' not in sys.modules\n"
        "assert all(getattr(hn, name) is not None for name in hn.__all__)"
    )
    done = _run(code)
    assert done.returncode == 0, done.stderr
    assert (ROOT / "hiddennet" / "py.typed").is_file()


LAZY = """
import sys
import hiddennet as hn
assert "torch" not in sys.modules and "numpy" not in sys.modules
@hn.register("schedule", "level")
def level(*_): return 1.0
from hiddennet import hide, nn
import torch
assert "topk_mask" in dir(hn.ops) and hn.hide is hide is nn.hide
"""
THEN_TORCH = """
import hiddennet, torch
x = torch.ops.hiddennet.encode_mask.default
assert torch.__spec__.loader is torch.__loader__ and type(torch.__loader__).__module__.startswith("_frozen_importlib")
import importlib.util
assert importlib.util.find_spec("torch").origin == torch.__file__
"""
UNPICKLED = """
import pickle, sys
model = pickle.loads(sys.stdin.buffer.read())
import hiddennet
print(hiddennet.density(model))
"""
REGISTERED = """
import torch, hiddennet
from hiddennet.registry import REGISTRIES
assert "topk" in REGISTRIES["rule"] and "generated" in REGISTRIES["source"]
"""


@pytest.mark.parametrize("code", [LAZY, THEN_TORCH, REGISTERED])
def test_import_alone_loads_no_torch_and_what_needs_it_is_there_with_it(code):
    done = _run(code)
    assert done.returncode == 0, done.stderr


def test_a_network_is_unpickled_before_anything_is_imported():
    model = hn.hide(torch.nn.Sequential(torch.nn.Linear(8, 4)))
    done = subprocess.run(
        [sys.executable, "-c", UNPICKLED], input=pickle.dumps(model), cwd=ROOT, capture_output=True, check=False
    )
    assert done.stdout.strip() == b"0.5", done.stderr


def test_env_says_what_is_there():
    found = env.collect()
    assert found["torch"] == torch.__version__
    assert found["_C (CPU)"].startswith("loaded")
    assert found["_C_cuda (kernels)"] == _load.cuda_status
    assert _run("from hiddennet import cli; cli.main(['env'])").stdout.count("\n") == len(found)


def test_the_package_runs_as_the_console_script():
    done = subprocess.run([sys.executable, "-m", "hiddennet", "inspect"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("usage: hiddennet inspect")


def test_a_missing_extension_is_one_sentence(tmp_path):
    for name in ("__init__.py", "_load.py"):
        target = tmp_path / "hiddennet" / name
        target.parent.mkdir(exist_ok=True)
        target.write_text((ROOT / "hiddennet" / "_load.py").read_text() if name == "_load.py" else "")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EDITABLE + "import hiddennet._load"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "expected the extension hiddennet._C, found none; build it with" in done.stderr.splitlines()[-1]


def test_the_toolkit_is_found_behind_a_wrapper_script(tmp_path, monkeypatch):
    real = find_toolkit()
    if real.home is None:
        pytest.skip(real.reason)
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {real.home}/bin/nvcc "$@"\n')
    wrapper.chmod(0o755)
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/usr/bin:/bin")
    assert find_toolkit().home == real.home


def test_without_a_toolkit_the_reason_is_said(tmp_path, monkeypatch):
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_toolkit()
    if found.home is None:
        assert "no CUDA toolkit with include/cuda_runtime.h" in found.reason
    else:  # the usual folder has one
        assert found.home == Path("/usr/local/cuda")


def test_trace_marks_scopes_and_hides_no_error():
    with pytest.raises(ZeroDivisionError), trace.range("outer"):
        raise ZeroDivisionError
