"""The wheel of the runtime: small, without torch, importable alone and beside the main package."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.common import rt

ROOT = Path(__file__).resolve().parents[2]
FILES = Path(__file__).parent / "files"
pytestmark = [pytest.mark.wheel, pytest.mark.timeout(1500)]

ALONE = """
import sys, time
sys.meta_path = [f for f in sys.meta_path if not f.__module__.startswith("__editable__")]
sys.path.insert(0, sys.argv[1])
sys.modules["torch"] = None
import numpy as np
import hiddennet.runtime as rt
assert rt.__file__.startswith(sys.argv[1]), rt.__file__
x = np.fromfile(sys.argv[2] + "/input.f32", np.float32).reshape(2, 3, 8, 8)
np.save(sys.argv[3], rt.load(sys.argv[2] + "/small.hidden", bf16=False)(x))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*command, ROOT / "runtime"], check=True, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_is_small_and_owns_the_runtime_alone(wheel):
    assert wheel.name.startswith("hiddennet_runtime-") and wheel.stat().st_size < 2_000_000
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    python = {name for name in names if name.endswith(".py")}
    assert python == {"hiddennet/runtime/__init__.py"}
    assert all(name.startswith("hiddennet/runtime/") for name in names) and len(names) == 2


def test_it_runs_where_nothing_else_of_hiddennet_is(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    command = [sys.executable, "-c", ALONE, tmp_path / "site", FILES, tmp_path / "y.npy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    x = np.fromfile(FILES / "input.f32", np.float32).reshape(2, 3, 8, 8)
    assert np.array_equal(np.load(tmp_path / "y.npy"), rt.load(FILES / "small.hidden", bf16=False)(x))


def test_no_library_of_it_needs_more_than_the_c_and_cpp_libraries(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    (library,) = (tmp_path / "hiddennet" / "runtime").glob("*.so")
    listing = subprocess.run(["ldd", library], check=True, capture_output=True, text=True, env={**os.environ}).stdout
    needed = {line.split()[0].rpartition("/")[2].partition(".")[0] for line in listing.splitlines()}
    assert needed <= {"linux-vdso", "libstdc++", "libm", "libgcc_s", "libc", "libpthread", "ld-linux-x86-64"}
