"""The command line as a process: exit statuses, one-line messages, SIGTERM and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hiddennet.train import checkpoint

ROOT = Path(__file__).resolve().parents[2]


def start(*arguments: str, cwd: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "hiddennet.run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment,
    )


def test_signals_end_a_run_early_and_it_goes_on(write, tmp_path):
    path = str(write())
    last = None
    for signum, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = start(path, "train.epochs=100000", cwd=tmp_path)
        seen = []
        for line in process.stdout:
            seen.append(line)
            if line.startswith("epoch"):
                process.send_signal(signum)
                break
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        name = signal.Signals(signum).name
        assert errors == f"hiddennet run: stopped by {name}, saved; the same command goes on\n"
        (saved,) = (tmp_path / "runs").rglob("last.pt")
        progress = checkpoint.load(saved)["progress"]
        if last is not None:
            assert "goes on with epoch" in seen[0]
            assert progress["step"] > last["step"]
            assert progress["history"][: len(last["history"])] == last["history"]
        last = progress


def test_a_mistake_is_one_line_and_status_1(write, tmp_path):
    process = start(str(write()), "method.density=1.4", cwd=tmp_path)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == ""
    assert errors.count("\n") == 1
    assert "method.density: expected a number, above 0 and at most 1, got 1.4" in errors
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("where", ["nowhere", "small.yml"])
def test_eval_of_something_else(write, tmp_path, where, capsys):
    from hiddennet import cli

    write()
    assert cli.main(["eval", str(tmp_path / where)]) == 1
    assert capsys.readouterr().err.startswith("hiddennet eval: ")


STARTS = (["-m", "hiddennet.run"], ["-m", "hiddennet.cli", "run"], ["bin/hiddennet", "run"])


@pytest.mark.parametrize("start", STARTS, ids=["module", "cli", "script"])
@pytest.mark.parametrize("policy", [None, "ACTIVE"])
def test_before_torch_is_there(tmp_path, start, policy):
    """Threads are told to wait without spinning where the user says nothing; Ctrl-C is one sentence."""
    torch = "import os, signal, time\nprint(os.environ['OMP_WAIT_POLICY'], flush=True)\n"
    torch += "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    (tmp_path / "torch.py").write_text(torch)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "hiddennet").write_text("from hiddennet.cli import main\nmain()\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "OMP_WAIT_POLICY": policy or ""}
    if policy is None:
        del environment["OMP_WAIT_POLICY"]
    done = subprocess.run(
        [sys.executable, *start, "digits"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it
    )
    assert (done.returncode, done.stderr) == (130, "hiddennet: stopped by SIGINT\n")
    assert done.stdout == f"{policy or 'PASSIVE'}\n"


def test_a_program_that_imports_the_package_keeps_its_own(tmp_path):
    code = "import os, signal; before = signal.getsignal(2); import hiddennet; assert signal.getsignal(2) is before"
    code += "; assert 'OMP_WAIT_POLICY' not in os.environ"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    subprocess.run([sys.executable, "-c", code], check=True, env={**environment, "PYTHONPATH": str(ROOT)})
