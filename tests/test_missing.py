"""Where pydantic is missing, as on a bare image of torch: what needs it is skipped by name, all else runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WITHOUT = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pydantic":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
sys.path.insert(0, "ROOT")
""".replace("ROOT", str(ROOT))
FILES = {
    "conftest.py": 'pytest_plugins = ["tests.missing"]',
    "folder/conftest.py": "import pydantic",
    "folder/test_in_a_folder.py": "def test_it(): pass",
    "test_module.py": "from pydantic.fields import FieldInfo\ndef test_it(): pass",
    "test_inside.py": "def test_imports(): import pydantic\ndef test_passes(): pass",
    "test_others.py": "def test_unknown(): import nobody_has_this\n"
    "def test_blocked(monkeypatch):\n"
    "    import sys\n"
    "    monkeypatch.setitem(sys.modules, 'tqdm', None)\n"
    "    import tqdm",
}


def _run(code: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", WITHOUT + code], cwd=cwd, capture_output=True, text=True, check=False)


def test_tests_that_need_it_are_skipped_and_other_errors_stay(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = _run("import pytest\nsys.exit(pytest.main(['-ra', '-q', '-p', 'no:cacheprovider']))", tmp_path)
    for place in ("folder", "test_module.py", "test_inside.py"):
        assert f"SKIPPED [1] {place}:" in done.stdout, done.stdout
    assert done.stdout.count("pydantic is not installed here") == 3
    assert "2 failed, 1 passed, 3 skipped" in done.stdout, done.stdout
    assert "FAILED test_others.py::test_unknown" in done.stdout
    assert "FAILED test_others.py::test_blocked" in done.stdout


def test_a_benchmark_that_needs_it_is_skipped(tmp_path):
    command = f"['bench', '--only', 'step_search', '--quick', '--device', 'cpu', '--out', {str(tmp_path)!r}]"
    done = _run(f"sys.argv = {command}\nfrom bench.__main__ import main\nsys.exit(main())", ROOT)
    assert done.returncode == 0, done.stderr
    assert "skipped step_search: it needs pydantic, which is not installed here" in done.stdout
    (report,) = tmp_path.glob("*.md")
    assert "skipped step_search: it needs pydantic" in report.read_text()
