"""Work off a sweep with processes of this machine. What others hold or have finished is theirs.

There is no queue: run.json says which runs are finished and the lock of a run's folder which are at
work, on this and on any other machine that shares the folder; the kernel gives the lock of a killed
process back.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from hiddennet.sweep import jobs
from hiddennet.sweep.folder import SweepFolder, last_line
from hiddennet.sweep.grid import Point
from hiddennet.train.console import clock
from hiddennet.train.signals import Stopped, StopWish

TRIES = 3  # of a job whose process is killed
LOOK_AGAIN = 2.0  # seconds until a job that another process holds is looked at again
PAUSE = 0.05  # seconds between looks at our own processes


@dataclass
class Job:
    """A point and how it stands: waiting, running, finished or failed."""

    number: int
    point: Point
    state: str = "waiting"
    tries: int = 0
    look_at: float = 0.0  # not before this time
    begun: float = 0.0


def slots(points: Sequence[Point], workers: int | None, gpus: int) -> list[dict[str, str]]:
    """The environment of each worker: a GPU of its own, or its share of the cores.

    workers: None takes one a GPU, else one for each four cores.
    """
    named = any(point.config.train.device.startswith("cuda:") for point in points)  # the user's choice of a GPU
    on_gpu = gpus > 0 and not named and any(point.config.train.device != "cpu" for point in points)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = workers or (gpus if on_gpu else max(1, cores // 4))
    threads = str(max(1, cores // count))
    found = []
    for worker in range(count):
        environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
        environment["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
        if on_gpu:
            seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            names = seen.split(",") if seen else [str(gpu) for gpu in range(gpus)]
            environment["CUDA_VISIBLE_DEVICES"] = names[worker % gpus]
        found.append(environment)
    return found


class Local:
    """The jobs of one sweep and the workers of this invocation."""

    def __init__(self, folder: SweepFolder, environments: Sequence[Mapping[str, str]], bar: bool | None = None):
        self.folder = folder
        self.environments = list(environments)
        self.jobs = [Job(number, point) for number, point in enumerate(folder.sweep.points, start=1)]
        self.running: dict[int, tuple[Job, subprocess.Popen]] = {}  # by worker
        with_bar = sys.stderr.isatty() if bar is None else bar
        self.bar = tqdm(total=len(self.jobs), desc=folder.sweep.name, unit="run", disable=not with_bar)

    def work(self) -> None:
        """Return when every job has finished, here or elsewhere, or failed here.

        Raises Stopped after SIGINT or SIGTERM, with all of our jobs stopped and saved.
        """
        try:
            before = sum(self._see_finished(job) for job in self.jobs)
            if before:
                self._say(f"{before} of {len(self.jobs)} runs were finished before")
            with StopWish() as wish:
                while any(job.state in ("waiting", "running") for job in self.jobs):
                    self._collect()
                    if wish.signum:
                        self._stop(wish.signum)
                    self._fill()
                    time.sleep(PAUSE)
        finally:
            for _, process in self.running.values():
                process.kill()
            self.bar.close()

    def _say(self, sentence: str) -> None:
        tqdm.write(sentence, file=sys.stdout)
        sys.stdout.flush()

    def _tell(self, job: Job, sentence: str) -> None:
        width = len(str(len(self.jobs)))
        self._say(f"[{job.number:{width}}/{len(self.jobs)}] {job.point}: {sentence}")

    def _see_finished(self, job: Job) -> bool:
        if not self.folder.record(job.point):
            return False
        job.state = "finished"
        self.bar.update()
        return True

    def _fill(self) -> None:
        """Give each idle worker the first job that waits and that nobody holds."""
        for worker in range(len(self.environments)):
            if worker not in self.running:
                job = self._next()
                if job is None:
                    break
                self._begin(worker, job)
        self.bar.set_postfix_str(f"{len(self.running)} at work", refresh=False)

    def _next(self) -> Job | None:
        now = time.monotonic()
        for job in self.jobs:
            if job.state != "waiting" or job.look_at > now:
                continue
            if self._see_finished(job):
                self._tell(job, "finished by another process")
            elif self.folder.run_folder(job.point).is_held():
                self._put_off(job)
            else:
                return job
        return None

    def _put_off(self, job: Job) -> None:
        if not job.look_at:
            self._tell(job, "another process is at work on it; looked at again")
        job.look_at = time.monotonic() + LOOK_AGAIN

    def _begin(self, worker: int, job: Job) -> None:
        begun = self.folder.run_folder(job.point).last.is_file()
        self._tell(job, "goes on from its checkpoint" if begun else "starts")
        job.state, job.tries, job.begun = "running", job.tries + 1, time.monotonic()
        self.running[worker] = job, jobs.begin(self.folder, job.point, self.environments[worker])

    def _collect(self) -> None:
        """Take note of the processes that have ended."""
        for worker, (job, process) in list(self.running.items()):
            status = process.poll()
            if status is None:
                continue
            del self.running[worker]
            self._end(job, status)

    def _end(self, job: Job, status: int) -> None:
        found = jobs.verdict(self.folder, job.point, status)
        job.state = "waiting"
        if found == "held":
            self._put_off(job)
        elif found == "finished":
            self._see_finished(job)
            accuracy = self.folder.record(job.point)["test_top1"]
            self._tell(job, f"finished, test {accuracy:.2%}, in {clock(time.monotonic() - job.begun)}")
        elif found == "killed" and job.tries < TRIES:
            name = signal.Signals(-status if status < 0 else status - 128).name
            self._tell(job, f"its process was ended by {name}")
        else:
            noted = self.folder.failure(job.point) or self.folder.note_failure(job.point, status)
            job.state = "failed"
            self.bar.update()
            self._tell(job, f"failed: {last_line(noted['lines'])} (all of it in {self.folder.log(job.point)})")

    def _stop(self, signum: int) -> None:
        """Ask our processes to save and end, and wait for them. A second signal ends the waiting."""
        if self.running:
            self._say(f"stopping: {len(self.running)} runs save their state")
        for _, process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for _, process in self.running.values():
            process.wait()
        self.running.clear()
        raise Stopped(signum)
