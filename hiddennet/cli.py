"""The console script `hiddennet`: run, compare, sweep, report, eval, export, inspect, import, config, keys, env."""

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from hiddennet import compare, env, inspect, listing, plugins, run
from hiddennet.nn.edge_rules import KINDS
from hiddennet.report import command as report
from hiddennet.sweep import command as sweep

# systems whose checkpoints are imported, by module, and the options that each understands
_IMPORTED = {
    "hidden-networks": ("hidden_networks", ("density", "kind", "evaluation")),
    "peek-a-boo": ("peek_a_boo", ("hidden_act",)),
    "dnw": ("dnw", ("density", "kind", "image_size", "dense_first")),
    "rare-gems": ("rare_gems", ("density", "kind", "threshold")),
    "iterand": ("iterand", ("density",)),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hiddennet", description="Find sub-networks of random networks; keep them in few bits."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, said: str, action: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=said)
        made.set_defaults(action=action)
        return made

    run.add_arguments(command("run", "run a config, or go on with it", run.execute))
    compare.add_arguments(command("compare", "run several configs and set them side by side", compare.execute))
    sweep.add_arguments(command("sweep", "run a grid of configs, by any number of processes", sweep.execute))
    report.add_arguments(command("report", "plots and tables of runs, as PNG and one HTML page", report.execute))

    evaluating = command("eval", "evaluate an artifact or a run's best epoch", _eval)
    evaluating.add_argument("network", metavar="ARTIFACT|RUN")
    evaluating.add_argument("--data", metavar="NAME", help="default: what it was trained on")
    evaluating.add_argument("--root", metavar="DIR", help="folder of the data sets; default: data")
    evaluating.add_argument("--split", choices=("train", "validation", "test"), default="test")
    evaluating.add_argument("--batch-size", type=int, default=256, metavar="N")
    evaluating.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    evaluating.add_argument("--download", action="store_true", help="fetch a missing data set")
    plugins.add_argument(evaluating)

    said = "write the artifact of a run's best epoch, a file that runs without torch, or an ONNX file"
    exporting = command("export", said, _export)
    exporting.add_argument("run", metavar="RUN", help="the folder of a run; with --runtime or --onnx also an artifact")
    exporting.add_argument("-o", "--output", metavar="FILE", help="default: into the folder")
    exporting.add_argument("--compact", action="store_true", help="a wiring without its dead nodes, to evaluate only")
    said = "write an artifact that hiddennet.runtime runs, of images as the network says it takes"
    exporting.add_argument("--runtime", metavar="FILE", help=said)
    exporting.add_argument("--onnx", metavar="FILE", help="write an ONNX file instead, of any batch size")
    said = "of its layers: int4, exact for weights of -c, 0 and +c; int8, a scale a channel; default: float32"
    exporting.add_argument("--onnx-weights", choices=("int4", "int8", "float32"), help=said)

    said = "what an artifact, a checkpoint or a run holds, layer by layer"
    inspect.add_arguments(command("inspect", said, inspect.execute))

    importing = command("import", "another system's checkpoint to an artifact", _import)
    importing.add_argument("system", choices=tuple(_IMPORTED))
    importing.add_argument("file", metavar="FILE")
    importing.add_argument("--arch", metavar="NAME", help="default: what the checkpoint says")
    importing.add_argument("--density", type=float, metavar="D", help="fraction kept; dnw's MobileNet-like: width")
    kinds = ("auto", "subnet", "fixed", "sample", "rounded", "global", "dense", *KINDS)
    said = "what has scores (hidden-networks: subnet, fixed, sample; rare-gems: rounded, subnet, global, dense), "
    said += "or of dnw's graph; default: auto"
    importing.add_argument("--kind", choices=kinds, metavar="KIND", help=said)
    importing.add_argument("--evaluation", choices=("expectation", "draw"), help="of samples; default: expectation")
    importing.add_argument("--threshold", type=float, metavar="C", help="of rare-gems' rounding; default: 0.5")
    latent = ("auto", "flipping", "pruning", "ternary", "none")
    importing.add_argument("--hidden-act", choices=latent, help="of peek-a-boo's Seed layers; default: auto")
    importing.add_argument("--image-size", type=int, metavar="N", help="of dnw: side of the images; default: 224 or 32")
    said = "of dnw's sparse ResNets: the first layer is dense"
    importing.add_argument("--dense-first", action="store_true", default=None, help=said)
    importing.add_argument("-o", "--output", required=True, metavar="FILE")

    run.add_arguments(command("config", "check a config and print it resolved", _config))

    keys = command("keys", "print all keys of a config and what they mean", _keys)
    keys.add_argument("group", nargs="?", metavar="GROUP", help="a section such as data, or a method; default: all")
    plugins.add_argument(keys)

    showing = command("list", "list models, methods, data sets or shipped configs, a line each", _list)
    showing.add_argument("what", choices=listing.WHAT)
    said = "a part of a name, or with * and ?; of models also timm:PATTERN, torchvision:PATTERN"
    showing.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help=said)
    plugins.add_argument(showing)

    env.add_arguments(command("env", "what this installation can do", env.execute))
    return parser


def _eval(arguments: argparse.Namespace) -> int:
    from hiddennet.train import evaluate

    plugins.load_named(arguments)
    found = evaluate.evaluate(
        arguments.network,
        data_name=arguments.data,
        root=arguments.root,
        split=arguments.split,
        batch_size=arguments.batch_size,
        device=arguments.device,
        download=arguments.download,
    )
    print(evaluate.summary(found))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from hiddennet import artifact
    from hiddennet.train import evaluate

    if arguments.onnx is not None:
        return _export_onnx(arguments)
    if arguments.onnx_weights is not None:
        raise ValueError("export: expected --onnx FILE with --onnx-weights, got none")
    if arguments.runtime is not None:
        _check_alone(arguments, "--runtime")
        from hiddennet.ordinary import shipped

        path = shipped.export_run(arguments.run, arguments.runtime)
    else:
        path = evaluate.export(arguments.run, arguments.output, compact=arguments.compact)
    sizes = artifact.sizes(path)
    print(
        f"{path}: {sizes['artifact_bytes']:,} bytes; "
        f"dense float32: {sizes['dense_bytes']:,} bytes ({sizes['ratio']:.1f} x)"
    )
    return 0


def _check_alone(arguments: argparse.Namespace, what: str) -> None:
    others = {"-o": arguments.output, "--compact": arguments.compact, "--runtime": arguments.runtime}
    for flag, given in others.items():
        if given and flag != what:
            raise ValueError(f"export: expected {what} FILE without {flag}, got both")


def _export_onnx(arguments: argparse.Namespace) -> int:
    from hiddennet.ordinary.onnx_file import export_onnx

    _check_alone(arguments, "--onnx")
    weights = arguments.onnx_weights or "float32"
    made = export_onnx(arguments.run, arguments.onnx, weights=weights)
    error = "" if weights == "float32" else f"; {made.layers} layers in {weights}, "
    if error:
        rounded = f"weights differ by at most {made.weight_error:.2%} of their channel's largest"
        error += rounded if made.weight_error else "exactly the same weights"
    print(
        f"{made.path}: {made.bytes:,} bytes{error}; logits in ONNX Runtime differ by at most {made.logit_error:.1e} "
        f"from torch's, of up to {made.outputs:.1e}"
    )
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from hiddennet import artifact

    module, understood = _IMPORTED[arguments.system]
    options = {option for _, takes in _IMPORTED.values() for option in takes}
    given = {option: getattr(arguments, option) for option in sorted(options) if getattr(arguments, option) is not None}
    for option in given:
        if option not in understood:
            flag, known = (f"--{name}".replace("_", "-") for name in (option, understood[0]))
            raise ValueError(
                f"import: expected options of {arguments.system} such as {known}, got {flag}; leave it out"
            )
    file, path = (os.path.expanduser(given) for given in (arguments.file, arguments.output))
    importer = importlib.import_module(f"hiddennet.importers.{module}")
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        importer.convert(file, arguments.arch, path, **given)
    for note in notes:
        print(f"note: {note.message}", file=sys.stderr)
    sizes = artifact.sizes(path)
    print(f"{path}: {sizes['artifact_bytes']:,} bytes, {sizes['hidden_weights']:,} hidden weights")
    return 0


def _config(arguments: argparse.Namespace) -> int:
    from hiddennet import config

    resolved = config.load(arguments.config, run.overrides_of(arguments))
    print(f"# {config.digest(resolved)}\n{config.dump(resolved)}", end="")
    return 0


def _keys(arguments: argparse.Namespace) -> int:
    from hiddennet.config.reference import reference

    plugins.load_named(arguments)
    print(reference(arguments.group), end="")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    plugins.load_named(arguments)
    print(listing.listing(arguments.what, arguments.pattern))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest:  # argparse stops reading key=value arguments at the first option
        strange = [argument for argument in rest if argument.startswith("-") or "=" not in argument]
        if strange or not hasattr(arguments, "overrides"):
            parser.error(f"unrecognized arguments: {' '.join(strange or rest)}")
        arguments.overrides += rest
    return run.guarded(lambda: arguments.action(arguments), f"hiddennet {arguments.command}")


if __name__ == "__main__":
    sys.exit(main())
