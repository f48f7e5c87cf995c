"""Execute the notebooks, so that what they show is what comes of their code.

python -m docs.site.execute           docs/notebooks/*.ipynb anew, in place
"""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"


def execute(path: Path, folder: Path, timeout: int = 600):
    """The notebook with new outputs, computed in `folder`. Raises nbclient's CellExecutionError where a cell does."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return notebook


def main() -> int:
    """All of them; what differs from one execution to the next without meaning is left out."""
    import nbformat

    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = execute(path, FOLDER)
        notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
        for cell in notebook.cells:
            cell.metadata = {}
        nbformat.write(notebook, path)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
