"""A notebook as a page: its text, its code, and what came of it. Needs no MkDocs and no Jupyter."""

from __future__ import annotations

import base64
import json
from pathlib import Path


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Its Markdown, and its pictures by the names that the Markdown has for them."""
    parts, pictures = [], {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(text)
        elif cell["cell_type"] == "code" and text:
            parts.append(f"```python\n{text}\n```")
            for output in cell["outputs"]:
                data = output.get("data", {})
                if "image/png" in data:
                    name = f"{path.stem}-{len(pictures) + 1}.png"
                    pictures[name] = base64.b64decode("".join(data["image/png"]))
                    parts.append(f"![what the code above draws]({name})")
                else:
                    said = "".join(output.get("text") or data.get("text/plain") or output.get("traceback", []))
                    parts.append(f"```{{.text .output}}\n{said.rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures
