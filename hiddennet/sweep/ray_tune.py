"""The same sweep on a Ray cluster, through Ray Tune: one trial a point, each the job of the local workers.

The nodes share the folder of the runs and the data at the same paths. A trial whose node dies is
tried again by Ray, and goes on from the run's checkpoint.
"""

import os
import time
from pathlib import Path
from typing import Any

from hiddennet.sweep import jobs
from hiddennet.sweep.folder import SweepFolder
from hiddennet.sweep.grid import Point

TRIES = 3  # of a trial whose process or node is lost
LOOK_AGAIN = 10.0  # seconds


def check() -> None:
    """Raise ValueError where Ray Tune is not installed."""
    try:
        from ray import tune  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"--engine ray: expected Ray Tune, got none ({error}); pip install 'hiddennet[ray]', or use --engine local"
        ) from None


def trial(folder: SweepFolder, point: Point, here: Path) -> str:
    """Run one point to its end where Ray has put us; wait while another process is at work on it.

    Ray sets CUDA_VISIBLE_DEVICES and OMP_NUM_THREADS, and another working folder than ours.

    Returns finished or failed. Raises RuntimeError when the job is killed, so that Ray tries again.
    """
    os.chdir(here)
    while True:
        if folder.record(point):
            return "finished"
        if not folder.run_folder(point).is_held():
            status = jobs.begin(folder, point, {}, here).wait()
            found = jobs.verdict(folder, point, status)
            if found == "killed":
                raise RuntimeError(f"sweep: expected {point} to run to its end, got status {status}")
            if found != "held":
                return found
        time.sleep(LOOK_AGAIN)


def work(folder: SweepFolder, workers: int | None) -> None:
    """Run all points that are not finished. workers: trials at a time; None leaves it to Ray."""
    from ray import tune

    here = Path.cwd()
    left = {point.digest: point for point in folder.sweep.points if not folder.record(point)}
    if not left:
        return

    def run_point(config: dict[str, Any]) -> dict[str, str]:
        return {"state": trial(folder, left[config["run"]], here)}

    on_gpu = any(point.config.train.device != "cpu" for point in left.values())
    resources = {"cpu": 1, "gpu": 1} if on_gpu and _has_gpu() else {"cpu": 1}
    tuner = tune.Tuner(
        tune.with_resources(run_point, resources),
        param_space={"run": tune.grid_search(list(left))},
        tune_config=tune.TuneConfig(max_concurrent_trials=workers),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(folder.path.resolve()),
            failure_config=tune.FailureConfig(max_failures=TRIES - 1),
        ),
    )
    tuner.fit()


def _has_gpu() -> bool:
    """Whether any node of the cluster has a GPU."""
    import ray

    if not ray.is_initialized():
        ray.init()
    return ray.cluster_resources().get("GPU", 0) > 0
