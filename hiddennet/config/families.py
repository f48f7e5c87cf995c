"""Families: a file with many configs, each a named variant of what the file says, and the sweeps over them.

    extends: base/trained.yml
    model: {name: resnet20}                            # what the variants share
    variants:
      dense: {method: {name: dense}}                   # the keys above with these on top
      dense-early: {extends: dense, train: {epochs: 11}}
      imp: {extends: base/imp.yml, train: {epochs: 160}}   # this file in place of base/trained.yml
    sweeps:
      seeds: {config: dense, grid: {seed: [1, 2, 3]}}

The file is a config by itself only where it says its method. A name that begins with _ is a piece: others extend it,
it is nothing by itself. The variant `dense` of resnet20.yml
is found as `resnet20@dense` and as `resnet20-dense`, which is also the name of its run. A file is read and taken apart
here; `load` merges and finds.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml as pyyaml

from hiddennet.registry import nearest, one_of
from hiddennet.settings import yaml
from hiddennet.settings.errors import ConfigError

KINDS = ("variants", "sweeps")


def split(place: Path) -> tuple[Path, str]:
    """The file and the variant of FILE@VARIANT; the variant of a plain file is ''."""
    name, _, variant = place.name.rpartition("@")
    return (place.with_name(name), variant) if name and not place.is_file() else (place, "")


def join(file: Path, variant: str) -> Path:
    """FILE@VARIANT, or the file where the variant is ''."""
    return file.with_name(f"{file.name}@{variant}") if variant else file


def run_name(place: Path) -> str:
    """The name of the run, or of the sweep, of a file or a variant."""
    file, variant = split(place)
    return f"{file.stem}-{variant}" if variant else file.stem


def spellings(name: str) -> Iterator[tuple[str, str]]:
    """The (file, variant) pairs that a name can mean, the likeliest first: `a-b@c`, or else `a-b-c` cut at a dash."""
    yield name, ""
    file, at, variant = name.rpartition("@")
    if at:
        yield file, variant
        return
    first = name.rfind("/") + 1
    for cut in (place for place in range(len(name) - 1, first, -1) if name[place] == "-"):
        yield name[:cut], name[cut + 1 :]


def document(file: Path, extending: Path | None = None) -> dict[str, Any]:
    """The map in a file. Raises ConfigError where there is none; `extending` is the file that asks for it."""
    try:
        found = yaml.read(file)
    except FileNotFoundError:
        asking, key = (file, "") if extending is None else (extending, "extends: ")
        raise ConfigError(str(asking), [f"{key}expected a file at {file}, got none"]) from None
    except OSError as error:
        raise ConfigError(str(file), [f"expected a readable text file, got {error}"]) from None
    except pyyaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise ConfigError(str(file), [f"expected YAML, got a mistake in it: {text}"]) from None
    if found is None:
        found = {}
    if not isinstance(found, Mapping):
        raise ConfigError(str(file), [f"expected a map of keys, got {found!r:.60}"])
    return dict(found)


def names(file: Path, kind: str | None = None) -> list[str]:
    """The variants and sweeps of a file, or those of one of KINDS, without the pieces."""
    parts = _parts(file, document(file))
    return [name for key in ([kind] if kind else KINDS) for name in parts[key] if not name.startswith("_")]


def by_itself(place: Path) -> bool:
    """Whether a place is a config by itself: a variant, a file without any, or one that says its own method too."""
    file, variant = split(place)
    own = document(file)
    return bool(variant) or "method" in own or not any(kind in own for kind in KINDS)


def layers(place: Path, extending: Path | None = None) -> tuple[Path | None, list[dict[str, Any]]]:
    """What a file or variant extends, None for nothing, and the documents to merge over that, the last wins.

    Raises ConfigError for a file that cannot be read, a variant that it does not have, `extends` that is no path.
    """
    file, variant = split(place)
    own = document(file, extending)
    parts = _parts(file, own)
    own = {key: value for key, value in own.items() if key not in KINDS}
    base, found = own.pop("extends", None), [own]
    if variant:
        kind = next((kind for kind in KINDS if variant in parts[kind]), None)
        if kind is None:
            raise ConfigError(str(file), [unknown(variant, names(file))])
        chosen = dict(parts[kind][variant])
        sibling = chosen.get("extends")
        if sibling in parts[kind]:
            base, found = f"{file.name}@{sibling}", [chosen]
        elif kind == "sweeps":
            base, found = sibling, [chosen]
        else:
            base, found = chosen.get("extends", base), [own, chosen]
        chosen.pop("extends", None)
    if base is None:
        return None, found
    if not isinstance(base, str):
        raise ConfigError(str(place), [f"extends: expected the path of one file, got {base!r}"])
    return (file.parent / Path(base).expanduser()).resolve(), found


def unknown(variant: str, known: list[str]) -> str:
    """The sentence that refuses a variant, or the want of one, '', where a file has the `known` ones."""
    if not known:
        return f"expected a config without variants, got @{variant}; leave it out"
    got = f"@{variant}{nearest(variant, known)}" if variant else "none; add @ and its name"
    return f"expected a variant, {one_of(known)}, got {got}"


def _parts(file: Path, own: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """The maps of variants and of sweeps of a document, checked."""
    parts: dict[str, dict[str, dict[str, Any]]] = {}
    for kind in KINDS:
        found = own.get(kind, {})
        if not isinstance(found, Mapping):
            raise ConfigError(str(file), [f"{kind}: expected a map from names to maps of keys, got {found!r:.60}"])
        parts[kind] = {str(name): {} if keys is None else keys for name, keys in found.items()}
        for name, keys in parts[kind].items():
            if not isinstance(keys, Mapping):
                raise ConfigError(str(file), [f"{kind}.{name}: expected a map of keys, got {keys!r:.60}"])
            if not name or set(name) & set("@/\\\0\n"):
                raise ConfigError(str(file), [f"{kind}: expected a name without '@' and '/', got {name!r}"])
    twice = sorted(set(parts["variants"]) & set(parts["sweeps"]))
    if twice:
        raise ConfigError(str(file), [f"sweeps.{twice[0]}: expected a name that no variant has, got {twice[0]}"])
    return parts
