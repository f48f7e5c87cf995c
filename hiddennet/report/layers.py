"""A run's layers: kept by flags and by rounding, alive, multiply-adds; at the end of the search and of the run."""

from __future__ import annotations

from dataclasses import dataclass

from hiddennet.analysis import LayerReport, layer_report
from hiddennet.nn.wiring import wirings
from hiddennet.report.networks import of_run
from hiddennet.report.runs import Run


@dataclass(frozen=True)
class Layers:
    """The layers of a network of a run, or why they are not known."""

    title: str
    reports: list[LayerReport]
    reason: str = ""


def of(run: Run) -> list[Layers]:
    """The run's networks: at the end of its search, if something came after it, and at its end."""
    stages = run.record.get("stages") or []
    wanted = [("", "best epoch")]
    if len(stages) > 1 and (run.folder.checkpoints / f"stage_{len(stages) - 2}.pt").is_file():
        name, tuned = stages[-2]["name"], stages[-1]["name"] == "fine_tune"
        before = "end of the search" if name == "search" else f"end of {name}"
        wanted = [(f"stage_{len(stages) - 2}", before), ("", "after fine-tuning" if tuned else "best epoch")]
    found = []
    for stage, title in wanted:
        try:
            network = of_run(f"{run.folder.path}@{stage}" if stage else run.folder.path)
            if wirings(network.model):
                continue  # which have a section of their own
            found.append(Layers(title, layer_report(network.model, network.input_shape)))
        except (ValueError, OSError, RuntimeError) as error:  # said on the page: the other runs are still shown
            found.append(Layers(title, [], str(error).splitlines()[0]))
    return found
