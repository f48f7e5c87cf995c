"""The page: numbers, plots and hashes of the runs, complete in itself, whatever the names are."""

from __future__ import annotations

import base64
import re
import shutil
from html.parser import HTMLParser

import pytest

from hiddennet import artifact, cli
from hiddennet.analysis import layer_report, total
from hiddennet.report import command, plots, runs, sections
from hiddennet.report.paint import paints
from hiddennet.train.folder import RunFolder
from tests.report.conftest import stage

PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """What a page asks for, its open elements and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.asked, self.open, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.asked += [value for key, value in attrs if key in ("src", "href", "srcset", "action", "style")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(path) -> Page:
    text = path.read_text()
    found = Page(text)
    assert not found.open and "<script" not in text and "@import" not in text and "url(" not in text
    assert all(value.startswith("data:image/png;base64,") for value in found.asked)
    for value in found.asked:
        assert base64.b64decode(value.partition(",")[2]).startswith(PNG)
    return found


def test_a_report_of_two_fake_runs_and_a_real_one(fake, real, tmp_path, capsys):
    fake(0.25, density=0.1, method={"density": 0.1})
    fake(0.35, density=0.1, method={"density": 0.1}, seed=1)
    done = real()
    record = done.read_record()
    assert cli.main(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "edge_popup  10.0000%  2 of 2  30.00% ± 7.07" in said
    page = read(tmp_path / "out" / "report.html")
    assert len(page.asked) == 2
    for name in ("accuracy_density.png", "accuracy_epoch.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(PNG)
    text = " ".join(page.text)
    assert "30.00% ± 7.07" in text and f"{record['test_top1']:.2%}" in text
    assert f"{record['config']}" in text and record["id"] in text and "c0ffee" in text
    assert "python -m hiddennet.run small seed=1" in text
    whole = total(layer_report(artifact.load(record["artifact"]), (1, 8, 8)))
    assert f"kept {whole.density:.4%}, alive multiply-adds {whole.alive_multiply_adds:,}" in text
    assert "best epoch: not known: checkpoint: expected a file at" in text  # of the fake runs
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_search_and_fine_tuning_are_told_apart(fake, real, tmp_path):
    done = real()
    shutil.copy(done.best, done.checkpoints / "stage_0.pt")
    record = done.read_record()
    record["stages"] = [stage("search", 1, 1, 0.1234), stage("fine_tune", 2, 2, record["test_top1"])]
    done.write_record(record)
    path = command.report([str(done.path)], tmp_path / "out")
    text = " ".join(read(path).text)
    assert "before training" in text and "12.34%" in text
    assert "end of the search: kept 50" in text and "after fine-tuning: kept 50" in text


def test_names_are_escaped_and_unfinished_runs_are_shown_as_such(fake, tmp_path):
    fake(0.5, name="a<b>&\"c'")
    open_run = fake(0.5, name="a<b>&\"c'", seed=1)
    open_run.record.write_text("{}")
    path = command.report([str(tmp_path / "runs")], tmp_path / "out", axis="epoch", layers="none")
    text = "".join(read(path).text)
    assert "a<b>&\"c'/" in text and "not finished" in text and "1 of 2" in text


def test_published_numbers_stand_beside_ours(fake, tmp_path):
    fake(0.5, density=0.3, model={"name": "conv4", "width": 1.0}, data={"name": "cifar10"})
    path = command.report([str(tmp_path / "runs")], tmp_path / "out", axis="density", layers="none")
    text = " ".join(read(path).text)
    assert "85.43%" in text and "file names and notebook" in text


@pytest.mark.parametrize("arguments", [[], ["nothing-here"]])
def test_nothing_to_report_is_one_sentence(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search("report: expected (at least one RUN, or --connect A B|the folder of a run)", line)
    assert not list(tmp_path.iterdir())


def test_the_page_lies_in_the_folder_it_is_about(fake, tmp_path, capsys):
    folder: RunFolder = fake(0.5)
    assert command.main([str(folder.path), "--layers", "none"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(folder.path / "report" / "report.html")


def test_flips_and_the_cost_of_training_are_told(real, tmp_path):
    model, data = {"name": "digits_conv", "width": 0.1}, {"limit": 100}
    signs = real(model=model, data=data, train={"epochs": 2}, method={"name": "peek_a_boo", "iterations": 2, "psg": {}})
    sparse = real(model=model, data=data, method={"name": "prune_at_init", "iterations": 2})
    path = command.report([str(signs.path), str(sparse.path)], tmp_path / "report", axis="epoch")
    text = "".join(read(path).text)
    assert (tmp_path / "report" / "flips_epoch.png").read_bytes().startswith(PNG)
    assert "Training cost" in text and "8 x 16 bits" in text and "32 x 32 bits" in text
    few, exact = (sections.cost_of(run) for run in runs.read_all([str(signs.path), str(sparse.path)])[0])
    if few.bit_operations > exact.bit_operations:
        few, exact = exact, few
    assert exact.bit_operations == exact.dense_bit_operations == few.dense_bit_operations
    assert few.bit_operations * 3 * 1024 == few.dense_bit_operations * (2 * 1024 + 8 * 16)
    assert few.kept_bit_operations < few.bit_operations and f"{few.kept_bit_operations:.4g}" in text


def drawn_along(monkeypatch, lines, axis):
    """The figure instead of its picture."""
    monkeypatch.setattr(plots, "png", lambda drawn: drawn)
    return plots.along(lines, axis).axes[0]


def test_one_place_is_dots_and_spread(fake, monkeypatch, tmp_path):
    """No line of one point on an axis from 48 to 52 %."""
    for seed, accuracy in enumerate((0.5, 0.6, 0.7)):
        fake(accuracy, seed=seed)
    fake(0.9, density=1.0, method={"name": "dense"})
    lines = runs.lines(runs.read_all([str(tmp_path)])[0], "density")
    axes = drawn_along(monkeypatch, lines, "density")
    dots = sorted(sorted(line.get_ydata()) for line in axes.lines if line.get_marker() == "o")
    assert dots == [[0.5, 0.6, 0.7], [0.9]]
    assert axes.get_xlabel() == "density 50 %" and not len(axes.get_xticks())
    means = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "_" and line.get_markersize() == 14]
    assert sorted(means) == pytest.approx([0.6, 0.9])
    fake(0.4, density=0.1, method={"density": 0.1})
    lines = runs.lines(runs.read_all([str(tmp_path)])[0], "density")
    assert len(drawn_along(monkeypatch, lines, "density").get_xticks()) == 2


def test_a_method_has_its_colour_in_every_plot():
    few, many = paints(["dense", "imp"]), paints(["imp", "dense", "imp", "imp"])
    assert few[0].color == many[1].color
    darker, _, own, lighter = (sum(paint.color) for paint in many)
    assert darker < own < lighter and many[2].color == pytest.approx(few[1].color)
    assert len({(paint.color, str(paint.dash)) for paint in paints(["a"] * 9 + ["b"] * 9)}) == 18
