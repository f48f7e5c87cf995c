"""Shared fixtures: the devices to test on, seeds, and few threads so that tests do not fight for the machine."""

from __future__ import annotations

import os
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
