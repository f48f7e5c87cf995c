"""The networks that a report looks into: of a run, of the end of a run's stage, of an artifact; and a run's layers, at
the end of the search and of the run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hiddennet import artifact, data
from hiddennet.analysis import LayerReport, layer_report
from hiddennet.nn.wiring import wirings
from hiddennet.report.runs import Run
from hiddennet.train.build import data_options
from hiddennet.train.opened import open_run


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode on the CPU, and the data that it was made for."""

    where: str
    model: nn.Module
    data_name: str
    options: dict[str, Any]  # of hiddennet.data.build
    batch_size: int
    root: str
    classes: list[str] | None = None  # their names by label

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one input: channels, height, width. Raises ValueError for a network that takes no images."""
        made = self.model.architecture
        if not {"in_channels", "image_size"} <= made.keys():
            raise ValueError(f"report: expected a network of images, got {made.get('name', 'another')}")
        return made["in_channels"], made["image_size"], made["image_size"]

    def build_data(self, device: torch.device, root: str | None = None) -> data.Data:
        """The data, training images without augmentation."""
        return data.build(
            self.data_name,
            root=root or self.root,
            batch_size=self.batch_size,
            device=device,
            augment=False,
            classes=self.classes or None,
            **self.options,
        )


def of_run(where: str | Path) -> Network | None:
    """The network of RUN's best epoch or of the end of RUN@STAGE; None where it names no folder. Raises as open_run."""
    run = open_run(where, "report")
    if run is None:
        return None
    data_section = run.config.data
    name = f"{run.folder.path}@{run.stage}" if run.stage else str(run.folder.path)
    made_for = data_section.name, data_options(run.config), data_section.batch_size, data_section.root
    known = run.record.get("contents", {}).get("classes")
    return Network(name, run.model, *made_for, known)


def open_network(where: str) -> Network:
    """The network that RUN, RUN@STAGE or an artifact's file names; STAGE as search, see hiddennet.train.opened."""
    found = of_run(where)
    if found is not None:
        return found
    if not Path(where).expanduser().is_file():
        raise FileNotFoundError(f"report: expected a run, RUN@search or an artifact, got {where}")
    header = artifact.read_header(where)
    facts = header["metadata"]
    if facts.get("data") is None or header["model"] is None:
        raise ValueError(f"report: expected an artifact of a run, which names its data, got {where}")
    options = facts.get("data_options") or {"seed": 0}
    return Network(where, artifact.load(where), facts["data"], options, 128, "data", facts.get("classes"))


@dataclass(frozen=True)
class Layers:
    """The layers of a network of a run, or why they are not known."""

    title: str
    reports: list[LayerReport]
    reason: str = ""


def layers_of_run(run: Run) -> list[Layers]:
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
