"""A pytest plugin: where a package is not installed, the tests that need it are skipped by name and the others run.

A bare image of torch lacks pydantic, and the kernels' tests need it for nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

PACKAGES = {
    *("matplotlib", "numpy", "nvtx", "pydantic", "safetensors", "sklearn"),
    *("tensorboard", "torchdiffeq", "torchvision", "tqdm", "yaml"),
}


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """A module, or a folder by its conftest.py, that needs what is not installed is skipped; other errors stay."""
    report = yield
    return _skipped_for_a_package(report, report.call, collector.path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """As above for a test that imports when it runs."""
    return _skipped_for_a_package((yield), call, item.path)


def _skipped_for_a_package(report, call, path):
    if report.outcome == "failed" and call.excinfo is not None:
        name = missing_package(call.excinfo.value)
        if name is not None:
            report.outcome, report.longrepr = "skipped", (str(path), 0, f"Skipped: {name} is not installed here")
    return report


def missing_package(error: BaseException | None) -> str | None:
    """Return the package of ours whose absence made this error, or None: blocked by a test is not absent."""
    for cause in _causes(error):
        name = (getattr(cause, "name", None) or "").partition(".")[0]
        if isinstance(cause, ModuleNotFoundError) and name in PACKAGES and _absent(name):
            return name
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        # pytest keeps what a conftest.py raised in an attribute of its own
        error = error.__cause__ or getattr(error, "cause", None) or error.__context__


def _absent(name: str) -> bool:
    if name in sys.modules:  # perhaps as None: blocked
        return False
    try:
        return find_spec(name) is None
    except ModuleNotFoundError:
        return True
