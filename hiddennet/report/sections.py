"""What a report says of runs: means over seeds, every run, layers, published numbers, what training cost, commands and
hashes."""

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiddennet.analysis import LayerReport, TrainingCost, total, training_cost
from hiddennet.analysis import layers as analysis
from hiddennet.analysis.layers import FLOAT_BITS
from hiddennet.report import page
from hiddennet.report.networks import Layers, layers_of_run
from hiddennet.report.runs import Line, Run, chosen
from hiddennet.settings import yaml
from hiddennet.tables import mean_and_spread
from hiddennet.train.console import clock


@dataclass(frozen=True)
class Published:
    """Accuracies, in [0, 1], before and after fine-tuning, and where they were read."""

    method: str
    model: str
    data: str
    density: float
    before: float | None
    after: float | None
    setting: str
    source: str


def read_published() -> list[Published]:
    """All of published.yml."""
    path = Path(__file__).with_name("published.yml")
    return [Published(**row) for row in yaml.parse(path.read_text(encoding="utf-8"))]


def published_beside(lines: Iterable[Line]) -> list[Published]:
    """What is published of the lines' networks on their data, whatever the method."""
    shown = {(line.model, line.data) for line in lines}
    return [row for row in read_published() if (row.model, row.data) in shown]


def _fraction(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def settings_table(lines: Sequence[Line], axis: str) -> tuple[list[str], list[list[str]]]:
    """Head and rows: each setting with its accuracies, mean and standard deviation over seeds."""
    staged = any(run.before is not None for line in lines for s in line.settings for run in s.runs)
    places = [] if axis in ("density", "epoch") else [axis]
    head = ["method", *places, "density", "seeds", *(["before training"] if staged else []), "test top-1"]
    rows = []
    for line in lines:
        for setting in line.settings:
            density = setting.values(lambda run: run.record.get("density"))
            row = [line.label, *(f"{setting.x:g}" for _ in places)]
            row.append(f"{sum(density) / len(density):.4%}" if density else "-")
            row.append(f"{len(setting.finished)} of {len(setting.runs)}")
            row += [mean_and_spread(setting.values(lambda run: run.before))] if staged else []
            rows.append([*row, mean_and_spread(setting.values(lambda run: run.record.get("test_top1")))])
    return head, rows


def runs_table(runs: Sequence[Run], labels: dict[int, str]) -> str:
    """Every run by itself."""
    head = ("run", "method", "seed", "density", "before training", "test top-1", "validation", "best epoch", "time")
    rows = []
    for run in runs:
        record = run.record
        density = "-" if record.get("density") is None else f"{record['density']:.4%}"
        best = f"{record['best_epoch']} of {record['epochs']}" if run.finished else "not finished"
        seconds = clock(record["seconds"]) if run.finished else "-"
        accuracies = [_fraction(v) for v in (run.before, record.get("test_top1"), record.get("validation_top1"))]
        rows.append([run.name, labels[id(run)], str(run.settings["seed"]), density, *accuracies, best, seconds])
    return page.table(head, rows, text=2)


def labels_of(lines: Iterable[Line]) -> dict[int, str]:
    """Each run's line, by identity."""
    return {id(run): line.label for line in lines for setting in line.settings for run in setting.runs}


def stages(runs: Sequence[Run], labels: dict[int, str]) -> str:
    """Runs of several stages, stage by stage; nothing without one."""
    head = ("run", "method", "seed", "stage", "epochs", "density", "test at its start", "test at its end")
    rows = []
    for run in runs:
        found = run.record.get("stages") or []
        for stage in found if len(found) > 1 else ():
            epochs = f"{stage['first_epoch']} to {stage['last_epoch']}"
            density = "-" if stage.get("density") is None else f"{stage['density']:.4%}"
            ends = [_fraction(stage.get("start_test_top1")), _fraction(stage.get("test_top1"))]
            rows.append([run.name, labels[id(run)], str(run.settings["seed"]), stage["name"], epochs, density, *ends])
    return page.section("Stages", page.table(head, rows, text=2)) if rows else ""


def published(rows: Sequence[Published]) -> str:
    """What others have published of the same networks on the same data; nothing without any."""
    if not rows:
        return ""
    head = ("method", "network", "data", "setting", "source", "density", "before training", "test top-1")
    cells = [
        (r.method, r.model, r.data, r.setting, r.source, f"{r.density:.3%}", _fraction(r.before), _fraction(r.after))
        for r in rows
    ]
    said = (
        "Read in the authors' repositories, or where the source says: other code, other data splits; one run each "
        "where no ± stands."
    )
    return page.section("Published", page.paragraph(said), page.table(head, cells, text=5))


def layers(lines: Sequence[Line], which: str, say: Callable[[str], None]) -> str:
    """Densities and alive multiply-adds by layer, of one run a setting or of all; nothing for `none`."""
    parts = []
    for title, run in chosen(lines, which):
        say(f"layers of {run.folder.path}")
        parts += [_layers(f"{title}: {found.title}", found) for found in layers_of_run(run)]
    if not parts:
        return ""
    said = (
        "Flags only: weights that are not struck out. Flags and rounding: what the mask reveals. Alive: revealed "
        "weights on a path from the input to the output; all in fractions of the layer's weights. A multiply-add is "
        "one weight at one position of the output, for one image."
    )
    return page.section("Layers", page.paragraph(said), *parts)


def _layers(title: str, found: Layers) -> str:
    if not found.reports:
        return page.paragraph(f"{title}: not known: {found.reason}")
    whole = total(found.reports)
    flags = "" if whole.flags_density is None else f"flags only {whole.flags_density:.4%}, "
    work = whole.alive_multiply_adds / max(1, whole.multiply_adds)
    summary = (
        f"{title}: {flags}kept {whole.density:.4%}, alive multiply-adds {whole.alive_multiply_adds:,} ({work:.2%})"
    )
    rows = [analysis.cells(report) for report in (*found.reports, whole)]
    return page.fold(summary, page.table(analysis.HEAD, rows, text=2, total=True))


def commands(runs: Sequence[Run]) -> str:
    """How each run was started, and what tells exactly what it computed."""
    parts = []
    for run in runs:
        record = run.record
        versions = ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items())
        lines = [
            shlex.join(_spoken(record.get("command") or [])),
            f"config   {run.digest}",
            f"run      {record.get('id', 'unknown')}",
            f"commit   {record.get('commit') or 'unknown'}",
            f"machine  {record.get('device', 'unknown')}, {record.get('processes', 1)} processes of "
            f"{record.get('threads', '?')} threads",
            f"versions {versions or 'unknown'}",
        ]
        parts.append(page.fold(run.name, page.code("\n".join(lines))))
    return page.section("Commands and hashes", *parts)


def _spoken(command: Sequence[str]) -> list[str]:
    """sys.argv of a run as it would be typed."""
    modules = {"run.py": "run", "compare.py": "compare"}
    if not command:
        return ["unknown"]
    first = Path(command[0]).name
    if first in modules:
        return ["python", "-m", f"hiddennet.{modules[first]}", *command[1:]]
    return [first, *command[1:]]


HEAD = (
    *("run", "method", "multiply-adds", "of the revealed", "weight gradient", "bit-operations", "of the revealed"),
    "of dense float32",
)


def cost_of(run: Run) -> TrainingCost | None:
    """The cost of a training step of the run's last stage; None where its record has no layers."""
    stages = run.record.get("stages") or []
    layers = stages[-1].get("layers") if stages else None
    if not layers:
        return None
    reports = [LayerReport(**{**layer, "shape": tuple(layer["shape"])}) for layer in layers]
    return training_cost(reports, input_bits=_bits(run, "input_bits"), gradient_bits=_bits(run, "gradient_bits"))


def _bits(run: Run, key: str) -> int:
    return run.settings.get(f"method.psg.{key}", FLOAT_BITS)


def costs(lines: Sequence[Line]) -> str:
    """One finished run of each setting; nothing where no run's layers are known."""
    rows = []
    for line in lines:
        for setting in line.settings:
            for run in setting.finished[:1]:
                cost = cost_of(run)
                if cost is None:
                    continue
                bits = " x ".join(str(_bits(run, key)) for key in ("input_bits", "gradient_bits"))
                share = cost.kept_bit_operations / max(1, cost.dense_bit_operations)
                numbers = (cost.multiply_adds, cost.kept_multiply_adds, cost.bit_operations, cost.kept_bit_operations)
                adds, kept, operations, of_revealed = (f"{number:.4g}" for number in numbers)
                rows.append([run.name, line.label, adds, kept, f"{bits} bits", operations, of_revealed, f"{share:.2%}"])
    if not rows:
        return ""
    said = (
        "One image's training step in convolutions and linear layers: the forward pass, the gradients of inputs and of "
        "weights. Bit-operations: the operands' bits multiplied, 32 x 32 but for the weight gradients of hidden layers "
        "where fewer bits predict them. Of the revealed: on hardware that leaves out the other weights; the last "
        "column sets that against the dense network in float32. Counts, not times."
    )
    return page.section("Training cost", page.paragraph(said), page.table(HEAD, rows, text=2))
