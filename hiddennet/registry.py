"""Registries: methods, rules, sources, models, data sets and more by name, ours and a user's alike.

    @hn.register("rule", "every_other")
    class EveryOther(hn.nn.Rule): ...

What is registered is validated, listed, resumed, exported and reported as what ships with the package. A config names
the modules that register with `plugins:`; an installed package announces them in the entry point group
`hiddennet.plugins`.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def nearest(word: Any, names: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest of `names`, or nothing when none is near."""
    near = difflib.get_close_matches(str(word).lower(), list(names), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def one_of(names: Iterable[str]) -> str:
    """Return `one of a, b, c`."""
    names = list(names)
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def signature_mistakes(name: str, thing: Callable, arguments: Iterable[str], known: Iterable[str]) -> list[str]:
    """What is wrong with the names of further arguments that `thing` is to be called with, a sentence each.

    name: what it is called. known: arguments that it is given anyway, under keys of their own.
    """
    named = inspect.signature(thing).parameters
    any_name = any(one.kind is one.VAR_KEYWORD for one in named.values())
    able = [key for key, one in named.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    taken, free, found = set(able) & set(known), [key for key in able if key not in known], []
    for key in arguments:
        if key in taken:
            found.append(f"arguments.{key}: expected it under a key of its own, {key}, got it among the arguments")
        elif key not in free and not any_name:
            takes = one_of(free) if free else "no further arguments"
            found.append(f"arguments.{key}: expected {takes} for {name}, got {key}{nearest(key, free)}")
    return found


class Registry(Mapping[str, Any]):
    """Things of one kind by name, in the order they were registered.

    A missing name raises KeyError, as in any mapping; `find` raises ValueError with the names there are.
    """

    def __init__(self, kind: str, label: str | None = None) -> None:
        self.kind, self.label = kind, label  # label: the attribute that a registered thing knows its name by
        self.check: Callable[[str, Any], None] = lambda name, thing: None  # raises ValueError for what is none
        self.base: type | None = None  # what its classes inherit from
        self.outside: Callable[[str], Any] | None = None  # finds names with a colon: hiddennet.outside; ValueError
        self._things: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        return self._things[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def find(self, name: Any) -> Any:
        """The thing of that name, registered or from outside. Raises ValueError with all names and the nearest."""
        if self.is_outside(name):
            try:
                return self.outside(name)
            except ValueError as error:
                raise ValueError(f"{self.kind}: {error}") from error
        if name not in self._things:
            raise ValueError(f"{self.kind}: expected {one_of(self)}, got {name!r}{nearest(name, self)}")
        return self._things[name]

    def is_outside(self, name: Any) -> bool:
        """Whether a name is of a library or a user's module, see hiddennet.outside."""
        return self.outside is not None and isinstance(name, str) and ":" in name and name not in self._things

    def add(self, name: str, thing: T) -> T:
        """Register `thing` under `name` and return it.

        The same definition may come again, from a module that was imported twice; another one of the name is refused.
        """
        old = self._things.get(name)
        if old is not None and _place(old) != _place(thing):
            raise ValueError(
                f"register: expected a {self.kind} name that is free, got {name!r}, which {_place(old)} has; "
                "choose another name"
            )
        if self.base is not None and not (isinstance(thing, type) and issubclass(thing, self.base)):
            raise ValueError(
                f"register: expected the {self.kind} {name!r} to be a subclass of hiddennet.nn.{self.base.__name__}, "
                f"got {_place(thing)}"
            )
        self.check(name, thing)
        self._things[name] = thing
        if self.label is not None:
            setattr(thing, self.label, name)
        return thing


def _place(thing: Any) -> str:
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"


KINDS = ("method", "rule", "source", "model", "data", "init", "optimizer", "schedule", "logger")
_LABELS = {"rule": "kind", "source": "kind"}
REGISTRIES = {kind: Registry(kind, _LABELS.get(kind)) for kind in KINDS}


def register(kind: str, name: str) -> Callable[[T], T]:
    """A decorator that registers a class or function as the `kind` (of KINDS) called `name`.

    Raises ValueError: an unknown kind, a name that another definition has, or a rule or source that is none.
    """
    if kind not in REGISTRIES:
        raise ValueError(f"register: expected {one_of(KINDS)}, got {kind!r}{nearest(kind, KINDS)}")
    return lambda thing: REGISTRIES[kind].add(name, thing)
