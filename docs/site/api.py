"""The API's pages: which names of the package stand on which, and their Markdown, for mkdocstrings to fill in.

The list of names is the package's own: what `__all__` of a module says. Needs no MkDocs.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from dataclasses import dataclass
from types import ModuleType

SHORT = {"hiddennet": "hn"}


@dataclass(frozen=True)
class Part:
    """Names of one module. names: what stands here; none: its `__all__`. words: after what it says of itself."""

    module: str
    names: tuple[str, ...] | None = None
    words: bool = False

    def found(self) -> list[str]:
        if self.names is not None:
            return list(self.names)
        return sorted(importlib.import_module(self.module).__all__, key=str.lower)


@dataclass(frozen=True)
class Page:
    """One page: its file below api/, its title, a few words, and the parts in order."""

    file: str
    title: str
    words: str
    parts: tuple[Part, ...]

    def exists(self) -> bool:
        return all(importlib.util.find_spec(part.module) is not None for part in self.parts)


PAGES = [
    Page("nn", "hn.nn", "Layers, sources, rules, and what hides them in a model.", (Part("hiddennet.nn"),)),
    Page(
        "ops",
        "hn.ops",
        "Functions on tensors. A table of them by backend: [The ops](../ops.md).",
        (Part("hiddennet.ops"),),
    ),
    Page("optim", "hn.optim", "Optimisers of signs and scores.", (Part("hiddennet.optim"),)),
    Page(
        "methods",
        "hiddennet.methods",
        "What a method is, and its hooks. Keys of those that ship: [All keys](keys.md); in words: "
        "[Methods, networks, data](../methods.md).",
        (
            Part("hiddennet.methods.base", ("Method", "Setting", "MethodSection", "DrawnSection")),
            Part("hiddennet.methods.layers", ("generated", "learn", "numbers")),
            Part("hiddennet.methods", ("METHODS", "create")),
        ),
    ),
    Page("pruning", "hn.pruning", "Masks before training, for any model.", (Part("hiddennet.pruning"),)),
    Page("analysis", "hn.analysis", "What a found network is made of.", (Part("hiddennet.analysis"),)),
    Page("models", "hn.models", "Networks by name, and what prepares them.", (Part("hiddennet.models"),)),
    Page(
        "artifact",
        "Artifacts, ordinary models, ONNX",
        "Out of the laboratory; in words: [Ship it](../ship.md).",
        (
            Part("hiddennet", ("export", "load", "plain", "export_onnx", "summary", "compact")),
            Part("hiddennet.artifact", ("read_header", "sizes", "ArtifactError", "FORMAT_VERSION")),
        ),
    ),
    Page(
        "runtime",
        "hiddennet.runtime",
        "A network run without torch; in words: [Ship it](../ship.md).",
        (Part("hiddennet.runtime", words=True),),
    ),
    Page(
        "train",
        "Configs, runs, loggers, plugins",
        "What the commands call. What a method may do between steps: [hiddennet.methods](methods.md).",
        (
            Part("hiddennet", ("register",)),
            Part("hiddennet.config"),
            Part("hiddennet.train.experiment", ("run",)),
            Part("hiddennet.train.evaluate", ("evaluate", "export")),
            Part("hiddennet.loggers", ("TensorBoard",), words=True),
            Part("hiddennet.trackers", ("WandB", "MLflow")),
        ),
    ),
]


def pages() -> list[Page]:
    """Those whose modules are there."""
    return [page for page in PAGES if page.exists()]


def shown(module: str, name: str) -> str:
    """What a reader writes: hn.nn.TopK."""
    first, _, rest = module.partition(".")
    deep = rest.count(".") or rest in ("config", "artifact", "loggers", "trackers", "methods", "runtime")
    return ".".join(part for part in (module if deep else SHORT[first] + (f".{rest}" if rest else ""), name) if part)


def place(module: str, name: str) -> str:
    """Where a name is defined, which is what mkdocstrings knows it by."""
    thing = getattr(importlib.import_module(module), name)
    if isinstance(thing, ModuleType):
        return thing.__name__
    if inspect.isclass(thing) or inspect.isfunction(thing):
        return f"{thing.__module__}.{thing.__qualname__}"
    return f"{module}.{name}"


def sentence(module: str, name: str) -> str:
    """The first of its docstring; nothing where a value has none of its own."""
    thing = getattr(importlib.import_module(module), name)
    if not (isinstance(thing, ModuleType) or inspect.isclass(thing) or inspect.isfunction(thing)):
        return ""
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return re.split(r"(?<! al\.)(?<=\.) (?=[A-Z])", text)[0].replace("|", "\\|")


def entry(module: str, name: str) -> str:
    return f"::: {place(module, name)}\n    options:\n      heading: {shown(module, name)}\n      toc_label: {name}\n"


def markdown(page: Page) -> str:
    """The page: its words, the module's, then each name."""
    parts = [f"# {page.title}\n\n{page.words}\n"]
    for part in page.parts:
        if part.words:
            parts.append(f"::: {part.module}\n    options:\n      members: false\n      heading: {part.module}\n")
        parts += [entry(part.module, name) for name in part.found()]
    return "\n".join(parts)


def index() -> str:
    """Every public name of the package, a sentence each, with where it is documented."""
    import hiddennet as hn

    homes = {place(part.module, name): page for page in pages() for part in page.parts for name in part.found()}
    modules = {page.parts[0].module: page for page in pages() if len(page.parts) == 1}
    lines = ["# hiddennet", "", "`import hiddennet as hn`: all of its names. Modules are imported when first used.", ""]
    lines += ["| | |", "|---|---|"]
    for name in public():
        where, said = place("hiddennet", name), sentence("hiddennet", name)
        if where in modules:
            link, said = f"[`hn.{name}`]({modules[where].file}.md)", said or modules[where].words
        elif where in homes:
            link = f"[`hn.{name}`]({homes[where].file}.md#{where})"
        else:
            link, said = f"`hn.{name}`", said or f"{getattr(hn, name)!r}"
        lines.append(f"| {link} | {said} |")
    return "\n".join(lines) + "\n"


def public() -> list[str]:
    """What `dir(hiddennet)` shows a user, without what the module imports for itself."""
    import hiddennet as hn

    return [name for name in dir(hn) if name in hn.__all__ or (name[0] != "_" and ours(getattr(hn, name)))]


def ours(thing: object) -> bool:
    """Whether it is a class or function of the package."""
    return getattr(thing, "__module__", "").startswith("hiddennet") if callable(thing) else False


def keys() -> str:
    """All keys of a config as tables: what `hiddennet keys` prints."""
    from hiddennet.config.reference import reference

    lines = ["# All keys of a config", "", "What `hiddennet keys` prints, plugins' keys apart.", ""]
    for paragraph in reference().strip().split("\n\n"):
        title, *rows = paragraph.split("\n")
        head, _, words = title.partition(": ")
        lines += [f"## {head}", "", words[:1].upper() + words[1:], "", "| key | value | meaning |", "|---|---|---|"]
        lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows] + [""]
    return "\n".join(lines)


def _cells(row: str) -> tuple[str, str, str]:
    """`  key (kind; default): meaning`, with what a table must not read as its own."""
    found = re.fullmatch(r"  (\S+) \((.*?; (?:default .*?|required))\)(?:: (.*))?", row)
    key, value, meaning = (text or "" for text in found.groups())
    return f"`{key}`", *(re.sub(r"([|*_<])", r"\\\1", text) for text in (value, meaning))
