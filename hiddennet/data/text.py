"""Texts as long columns of words: ``read_text`` reads the three files of WikiText's layout, ``TextLoader``
gives batches of consecutive words. Not for sentences in random order."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

TEXT = ("text_folder",)
FILES = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}
FOLDERS = ("text_folder", "wikitext-2", ".")
END_OF_LINE = "<eos>"


@dataclass(frozen=True)
class Text:
    """The words of each part as numbers, int64 (N,), and the vocabulary they number."""

    train: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor
    words: tuple[str, ...]


def locate_text(root: Path) -> Path:
    """The folder of the three files below ``root``. Raises FileNotFoundError with where it looked."""
    folders = [root / folder for folder in FOLDERS]
    found = next((folder for folder in folders if (folder / FILES["train"]).is_file()), None)
    if found is None:
        looked_for = " or ".join(str(folder / FILES["train"]) for folder in folders)
        raise FileNotFoundError(
            f"text_folder: expected the file {looked_for}, got none; put {', '.join(FILES.values())} there"
        )
    missing = [name for name in FILES.values() if not (found / name).is_file()]
    if missing:
        raise FileNotFoundError(f"text_folder: expected {found / missing[0]} beside train.txt, got none; put it there")
    return found


def read_text(folder: Path) -> Text:
    """Words split at white space and ``<eos>`` at the end of every line; the vocabulary is that of all three
    files, training text first, in order of first appearance. Raises ValueError for a file without words."""
    numbers: dict[str, int] = {}
    parts = {}
    for part, file in FILES.items():
        found: list[int] = []
        try:
            with open(folder / file, encoding="utf-8") as lines:
                for line in lines:
                    for word in (*line.split(), END_OF_LINE):
                        found.append(numbers.setdefault(word, len(numbers)))
        except UnicodeDecodeError as error:
            raise ValueError(f"text_folder: expected UTF-8 text in {folder / file}, got {error}") from None
        if not found:
            raise ValueError(f"text_folder: expected words in {folder / file}, got an empty file")
        parts[part] = torch.tensor(found, dtype=torch.int64)
    return Text(**parts, words=tuple(numbers))


class TextLoader:
    """Batches (tokens int64 (steps, batch_size), the words that follow them int64 (steps * batch_size,)).

    The text is cut into ``batch_size * world_size`` equally long columns, of which a rank takes every
    ``world_size``-th; what is left over is dropped. A batch holds the next ``bptt`` words of every
    column, the last one what is left, so that the state of a network after one batch is where the
    next begins. A column counts as an image in ``num_images``: ``batch_size`` of them a batch on each rank.
    """

    def __init__(
        self,
        words: torch.Tensor,
        *,
        batch_size: int,
        bptt: int,
        device: torch.device,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        columns = batch_size * world_size
        length = len(words) // columns
        if length < 2:
            raise ValueError(
                f"batch_size: expected at most {len(words) // 2} columns for a text of {len(words)} words, "
                f"got {columns}"
            )
        table = words[: length * columns].view(columns, length).T
        self.words = table[:, rank::world_size].contiguous().to(device)
        self.bptt, self.columns = bptt, columns

    @property
    def num_images(self) -> int:
        """Columns of all batches of an epoch, over all ranks."""
        return len(self) * self.columns

    def __len__(self) -> int:
        return -(-(len(self.words) - 1) // self.bptt)

    def set_epoch(self, epoch: int) -> None:
        """Every epoch reads the text in the same order."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(self.words) - 1, self.bptt):
            stop = min(start + self.bptt, len(self.words) - 1)
            yield self.words[start:stop], self.words[start + 1 : stop + 1].flatten()
