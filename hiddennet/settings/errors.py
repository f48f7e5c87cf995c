"""A refused config in words: each mistake's key, the value, what is allowed, the nearest name."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from hiddennet.registry import nearest, one_of

# Keys of the original systems and of other libraries, and what they are called here.
FOREIGN_KEYS = {
    "prune_rate": "method.density, the fraction kept",
    "sparsity": "method.density, the fraction kept (1 - sparsity)",
    "arch": "model.name",
    "set": "data.name",
    "dataset": "data.name",
    "conv_type": "method.name",
    "bn_type": "model.batch_norm",
    "width_mult": "model.width",
    "lr_policy": "schedule.name",
    "warmup_length": "schedule.warmup_epochs",
    "no_bn_decay": "optimizer.batch_norm_decay: false",
    "first_layer_dense": "model.first_layer: dense",
    "last_layer_dense": "model.last_layer: dense",
    "score_init_constant": "method.score_init",
    "multigpu": "torchrun --nproc-per-node N -m hiddennet.run ...",
    "learning_rate": "optimizer.lr",
    "log_dir": "runs",
    "amp_on_cpu": "train.amp: bf16, on any device, or train.amp: float32",
}


class ConfigError(ValueError):
    """A config that is refused. `mistakes` has one sentence each."""

    def __init__(self, source: str, mistakes: Iterable[str]):
        self.mistakes = list(mistakes)
        if len(self.mistakes) == 1:
            text = f"{source}: {self.mistakes[0]}"
        else:
            lines = "".join(f"\n  {mistake}" for mistake in self.mistakes)
            text = f"{source}: {len(self.mistakes)} mistakes{lines}"
        super().__init__(text)


def shown(value: Any) -> str:
    """The value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def unknown_key(path: str, value: Any, section: str, allowed: Iterable[str], home: str) -> str:
    """Say that `path` is no key of `section`; `home` says where the key would be at home."""
    key, allowed = path.rsplit(".", 1)[-1], list(allowed)
    hint = nearest(key, allowed)
    if key in FOREIGN_KEYS:
        hint = f"; here it is called {FOREIGN_KEYS[key]}"
    elif home and not hint:
        hint = f"; {home}"
    return f"{path}: expected a key of {section} ({', '.join(allowed)}), got {key}: {shown(value)}{hint}"


def explain(error: ValidationError, section: type[BaseModel], prefix: str) -> list[str]:
    """Return one sentence for each value that `section` refuses; `prefix` is the section's path."""
    by_field: dict[str, list[Mapping[str, Any]]] = {}
    for mistake in error.errors():
        by_field.setdefault(str(mistake["loc"][0]) if mistake["loc"] else "", []).append(mistake)
    sentences = []
    for name, mistakes in by_field.items():
        field = section.model_fields.get(name)
        path = f"{prefix}{name}"
        if name == "":
            sentences += [f"{prefix.rstrip('.')}: {mistake['msg']}" for mistake in mistakes]
        elif len(mistakes) > 1 and all(isinstance(m["loc"][-1], str) for m in mistakes):
            allowed = list(dict.fromkeys(_allowed(mistake, field) for mistake in mistakes))
            value = mistakes[0]["input"]
            hint = "".join(nearest(value, _choices(m)) for m in mistakes if isinstance(value, str))
            sentences.append(f"{path}: expected {' or '.join(allowed)}, got {shown(value)}{hint}")
        else:
            for mistake in mistakes:
                inner = [str(part) for part in mistake["loc"][1:] if isinstance(part, int)]
                sentences.append(_sentence(mistake, ".".join([path, *inner]), field))
    return sentences


def _sentence(mistake: Mapping[str, Any], path: str, field: FieldInfo | None) -> str:
    value = mistake["input"]
    if mistake["type"] == "missing":
        meaning = f"; it is {field.description}" if field is not None and field.description else ""
        return f"{path}: expected a value, got none{meaning}"
    if mistake["type"] == "value_error":
        return f"{path}: {mistake['ctx']['error']}"
    allowed = _allowed(mistake, field)
    return f"{path}: expected {allowed}, got {shown(value)}{nearest(value, _choices(mistake))}"


_KINDS = {
    "bool_type": "true or false",
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "list_type": "a list",
    "model_type": "a map of keys",
    "dict_type": "a map of keys",
}
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def _choices(mistake: Mapping[str, Any]) -> list[str]:
    if mistake["type"] != "literal_error":
        return []
    return mistake["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")


def _allowed(mistake: Mapping[str, Any], field: FieldInfo | None) -> str:
    kind = mistake["type"]
    if kind == "literal_error":
        return one_of(_choices(mistake)) + _or_null(field)
    bounds = range_of(field.metadata if field is not None else ()) or _bound_of(mistake)
    if bounds and kind.startswith(("greater_than", "less_than", "int", "float", "finite")):
        noun = "a whole number" if kind.startswith("int") or field.annotation is int else "a number"
        return f"{noun}, {bounds}{_or_null(field)}"
    if kind in ("too_short", "too_long"):
        least, most = mistake["ctx"].get("min_length"), mistake["ctx"].get("max_length")
        return f"a list of {f'at least {least}' if kind == 'too_short' else f'at most {most}'} values"
    if kind in _KINDS:
        return _KINDS[kind] + _or_null(field)
    return mistake["msg"][0].lower() + mistake["msg"][1:]


def _bound_of(mistake: Mapping[str, Any]) -> str:
    """The bound that was passed, where it is of a part of the key's type and not of the key itself."""
    context = mistake.get("ctx", {})
    return " and ".join(f"{word} {context[name]:g}" for name, word in _BOUNDS.items() if name in context)


def _or_null(field: FieldInfo | None) -> str:
    allows = field is not None and not field.is_required() and field.default is None
    return " or null" if allows else ""


def range_of(metadata: Iterable[Any]) -> str:
    """The whole range of a number, `above 0 and at most 1`, from the bounds in a type's metadata."""
    return " and ".join(
        f"{word} {getattr(bound, name):g}"
        for bound in _flat(metadata)
        for name, word in _BOUNDS.items()
        if getattr(bound, name, None) is not None
    )


def _flat(metadata: Iterable[Any]) -> Iterable[Any]:
    for item in metadata:
        yield from _flat(item.metadata) if isinstance(item, FieldInfo) else (item,)
