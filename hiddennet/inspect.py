"""`hiddennet inspect`: what an artifact, a checkpoint or a run holds, layer by layer."""

import argparse
import json
from pathlib import Path
from typing import Any

from hiddennet import plugins


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="FILE|RUN", help="an artifact, a checkpoint in a run's folder, or a run")
    parser.add_argument("--json", action="store_true", help="as JSON")
    plugins.add_argument(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Print what the arguments name; return the exit status."""
    plugins.load_named(arguments)
    found = inspect(arguments.network)
    print(json.dumps(as_dict(found)) if arguments.json else as_text(found))
    return 0


def inspect(where: str | Path) -> dict[str, Any]:
    """What is at a path: `kind`, `path`, `bytes` of the file, `facts` (JSON-able) and `contents`.

    An artifact of a network that cannot be built here is read without it; what is alive is then not known.
    Raises as hiddennet.ordinary.open_network.
    """
    from hiddennet import artifact
    from hiddennet.artifact.network import read
    from hiddennet.ordinary.contents import Contents, contents, file_contents
    from hiddennet.ordinary.opened import is_artifact, open_network

    if not is_artifact(where):
        opened = open_network(where, "inspect")
        held = contents(opened.model)
        return {"path": str(where), "kind": opened.kind, "bytes": opened.bytes, "facts": opened.facts, "contents": held}
    path = Path(where).expanduser()
    header, tensors = read(path)
    alive, unknown = {}, ""
    if header.get("kind") != "compact":
        if header["model"] is None:
            unknown = f"the network is {header['class']}, of which the file holds no recipe"
        else:
            whole = contents(artifact.load(path))
            alive = {row.name: row.alive for row in whole.layers if row.alive is not None}
            unknown = whole.unknown
    held = Contents(file_contents(header, tensors, alive).layers, unknown)
    kind = "compact artifact" if header.get("kind") == "compact" else "artifact"
    return {
        "path": str(where),
        "kind": kind,
        "bytes": path.stat().st_size,
        "facts": _facts(header),
        "contents": held,
    }


def _facts(header: dict[str, Any]) -> dict[str, Any]:
    """What a header says of the whole network."""
    sources = [layer.get("drawn_from", layer["source"]) for layer in header["layers"]]
    rules = [layer["rule"] for layer in header["layers"] if layer.get("rule")]
    return {
        "format": header["format_version"],
        "checksum": header["checksum"],
        "model": (header["model"] or {}).get("name"),
        "class": header.get("class"),
        "method": header["method"],
        "sources": _distinct({k: v for k, v in source.items() if k != "layer"} for source in sources),
        "rules": _distinct(rules),
        "config_hash": header["config_hash"],
        "dense_bytes": header["dense_bytes"],
        "versions": header.get("versions", {}),
        "metadata": header["metadata"],
    }


def _distinct(things) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for thing in things:
        if thing not in found:
            found.append(thing)
    return found


def as_dict(found: dict[str, Any]) -> dict[str, Any]:
    """JSON-able."""
    facts = {key: value for key, value in found.items() if key != "contents"}
    return {**facts, "facts": dict(found["facts"]), **found["contents"].as_dict()}


def as_text(found: dict[str, Any]) -> str:
    """For a console."""
    from hiddennet.tables import named

    facts = {key: _said(value) for key, value in found["facts"].items() if value not in (None, [], {})}
    size = {} if found["bytes"] is None else {"bytes": f"{found['bytes']:,}"}
    dense = found["facts"].get("dense_bytes")
    if dense:
        facts["dense_bytes"] = f"{dense:,} in float32, {dense / max(1, found['bytes']):.1f} times as much"
    held = found["contents"]
    lines = [named(found["path"], {"kind": found["kind"], **size, **facts}), "", held.table()]
    return "\n".join([*lines, f"alive: not known; {held.unknown}"] if held.unknown else lines)


def _said(value: Any) -> str:
    """A value of a header in a line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(inner)}" for key, inner in value.items() if inner is not None)
    if isinstance(value, list):
        named = [_said(one) for one in value[:4]]
        return "; ".join(named) + (f" and {len(value) - 4} more" if len(value) > 4 else "")
    return str(value)
