"""Where data sets lie below ``root``, what to say when they do not, and their download on request.
Not for reading them."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path


def locate(
    name: str,
    root: Path,
    layouts: Sequence[str],
    *,
    remedy: str,
    torchvision: str | None = None,
    download: bool = False,
) -> Path:
    """The first of ``root``/``layouts`` that is a folder.

    Where there is none and ``download`` is set, torchvision's class of the name ``torchvision``
    fetches the set into ``root``. Raises FileNotFoundError with the paths looked for and the way
    out: ``remedy`` says what the user puts there.
    """
    folders = [root / layout for layout in layouts]

    def find() -> Path | None:
        return next((folder for folder in folders if folder.is_dir()), None)

    if download and torchvision and find() is None:
        with _alone(root):
            if find() is None:
                _download(name, root, torchvision, remedy)
    found = find()
    if found is None:
        looked_for = " or ".join(str(folder) for folder in folders)
        way_out = remedy
        if torchvision:
            way_out += ", or set data.download=true"
        elif download:
            way_out += " (it cannot be downloaded for you)"
        raise FileNotFoundError(f"{name}: expected the folder {looked_for}, got none; {way_out}")
    return found


def _download(name: str, root: Path, torchvision: str, remedy: str) -> None:
    try:
        from torchvision import datasets

        getattr(datasets, torchvision)(str(root), download=True)
    except Exception as error:  # torchvision lets through whatever the network raised
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileNotFoundError(f"{name}: expected to download it into {root}, got {reason[:200]}; {remedy}") from error


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Lets one process of this machine at a time download into ``root``."""
    import fcntl

    root.mkdir(parents=True, exist_ok=True)
    with open(root / ".download.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
