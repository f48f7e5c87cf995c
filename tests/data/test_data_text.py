"""Texts: the vocabulary, the columns and batches, the shares of ranks, and what is refused."""

from __future__ import annotations

import pytest
import torch

from hiddennet import data
from hiddennet.data.text import TextLoader, locate_text, read_text

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """Three files of a few lines."""
    (tmp_path / "train.txt").write_text(" the cat  sat \n\n on the mat\n")
    (tmp_path / "valid.txt").write_text("the dog sat\n")
    (tmp_path / "test.txt").write_text("a cat\n")
    return tmp_path


def loader(count, **arguments):
    return TextLoader(torch.arange(count), **{"batch_size": 2, "bptt": 3, "device": CPU, **arguments})


def test_words_are_numbered_as_they_appear(folder):
    text = read_text(folder)
    assert text.words == ("the", "cat", "sat", "<eos>", "on", "mat", "dog", "a")
    assert text.train.tolist() == [0, 1, 2, 3, 3, 4, 0, 5, 3]  # an empty line is an end of line
    assert text.validation.tolist() == [0, 6, 2, 3]
    assert text.test.tolist() == [7, 1, 3]
    assert text.train.dtype == torch.int64


def test_columns_are_consecutive_words_and_targets_the_next():
    batches = list(loader(17))  # 2 columns of 8, one word left over
    assert [tokens.tolist() for tokens, _ in batches] == [
        [[0, 8], [1, 9], [2, 10]],
        [[3, 11], [4, 12], [5, 13]],
        [[6, 14]],
    ]
    for tokens, targets in batches:
        assert tokens.dtype == targets.dtype == torch.int64
        assert targets.tolist() == (tokens + 1).flatten().tolist()
    assert len(loader(17)) == 3 and len(loader(14)) == 2 and loader(17).num_images == 6


def test_every_epoch_reads_in_order():
    found = loader(40)
    first = [tokens.tolist() for tokens, _ in found]
    found.set_epoch(5)
    assert [tokens.tolist() for tokens, _ in found] == first


def test_ranks_share_the_columns_of_one_process():
    whole = list(loader(100, batch_size=6))
    ranks = [list(loader(100, batch_size=2, rank=rank, world_size=3)) for rank in range(3)]
    assert all(len(share) == len(whole) for share in ranks)
    for i, (tokens, _) in enumerate(whole):
        together = torch.stack([share[i][0] for share in ranks], dim=2)  # column c is of rank c % 3
        assert torch.equal(together.flatten(1), tokens)
    assert loader(100, batch_size=2, rank=0, world_size=3).num_images == loader(100, batch_size=6).num_images


@pytest.mark.parametrize("where", ["", "wikitext-2", "text_folder"])
def test_the_set_by_name(folder, where):
    place = folder / where
    place.mkdir(exist_ok=True)
    for file in list(folder.glob("*.txt")):
        file.rename(place / file.name)
    assert locate_text(folder) == place
    found = data.build("text_folder", root=folder, batch_size=1, bptt=4, device="cpu", seed=0)
    assert (found.num_classes, found.in_channels, found.image_size) == (8, 1, 4)
    assert [tokens.flatten().tolist() for tokens, _ in found.train] == [[0, 1, 2, 3], [3, 4, 0, 5]]
    assert next(iter(found.validation))[0].flatten().tolist() == [0, 6, 2]
    assert next(iter(found.test))[1].tolist() == [1, 3]
    assert "text_folder" in data.names()


def test_no_validation_and_a_limit(folder):
    def build(**arguments):
        return data.build("text_folder", root=folder, batch_size=1, device="cpu", seed=0, **arguments)

    assert build(validation=0).validation is None
    limited = build(limit=5)
    assert next(iter(limited.train))[0].flatten().tolist() == [0, 1, 2, 3]
    assert next(iter(limited.test))[0].flatten().tolist() == [7]  # two of three words
    assert limited.num_classes == 8
    assert len(next(iter(build(limit=1000).train))[0]) == 8


def test_what_is_missing_is_named(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match=r"expected the file .*text_folder/train.txt or .*got none; put"):
        locate_text(tmp_path / "elsewhere")
    (folder / "valid.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected .*valid.txt beside train.txt"):
        locate_text(folder)


@pytest.mark.parametrize(("content", "message"), [(b"", "expected words in .*test.txt"), (b"\xff\xfe a", "UTF-8")])
def test_damaged_files_are_refused(folder, content, message):
    (folder / "test.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_text(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 5}, "batch_size: expected at most 4 columns for a text of 9 words, got 5"),
        ({"bptt": 0}, "bptt: expected at least 1, got 0"),
        ({"split": "permutation"}, "split: expected stratified for text_folder, got 'permutation'"),
        ({"normalization": "imagenet"}, "normalization: expected own for text_folder"),
        ({"in_channels": 3}, "in_channels: expected it with data.name=synthetic only"),
    ],
)
def test_impossible_requests_are_refused(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        data.build("text_folder", **{"root": folder, "batch_size": 1, "device": "cpu", "seed": 0, **arguments})
