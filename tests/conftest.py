"""Shared fixtures: the devices to test on, seeds, and few threads so that tests do not fight for the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

os.environ["HIDDENNET_AMP"] = "float32"  # what train.amp=auto is, whatever pays on the machine of the tests
os.environ["HIDDENNET_PLANS"] = "fixed"  # no choice of convolutions by measuring: the same bits on every run
pytest_plugins = ["tests.missing"]


def pytest_collection_modifyitems(items) -> None:
    """A test of a CUDA device is marked `cuda`, and skipped with a reason where there is no GPU."""
    for item in items:
        params = getattr(item, "callspec", None)
        if params is not None and params.params.get("device") == "cuda":
            item.add_marker(pytest.mark.cuda)
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA GPU here"))


def _can_fork() -> bool:
    """Whether a fork of this process can train: torch refuses it once its autograd engine has started threads."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.ones(1, requires_grad=True).sum().backward()
            status = 0
        finally:  # whatever was raised: the child runs none of pytest
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem) -> bool | None:
    """A test that trains in forks has a process of its own where an earlier test left this one without that power."""
    if pyfuncitem.get_closest_marker("forks") is None or "HIDDENNET_TEST_ALONE" in os.environ or _can_fork():
        return None
    alone = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", pyfuncitem.nodeid]
    words = {**{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}, "HIDDENNET_TEST_ALONE": "1"}
    done = subprocess.run(alone, cwd=pyfuncitem.config.rootpath, env=words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return True


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> torch.device:
    """Each device the ops run on."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory) -> None:
    """What is measured in tests is not kept for the user."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Nets this small gain nothing from more, and forked processes cannot use the parent's pool."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
