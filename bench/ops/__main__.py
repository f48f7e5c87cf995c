"""One op's benchmark.

python -m bench.ops NAME [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

from bench import table
from bench.harness import parser
from bench.ops import codes, convolutions, maps, scores, search, selection, weights, wirings

BENCHMARKS = {
    **selection.BENCHMARKS,
    **search.BENCHMARKS,
    **weights.BENCHMARKS,
    **scores.BENCHMARKS,
    **codes.BENCHMARKS,
    **convolutions.BENCHMARKS,
    **maps.BENCHMARKS,
    **wirings.BENCHMARKS,
}


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("name", choices=tuple(BENCHMARKS), metavar="NAME", help=", ".join(BENCHMARKS))
    args = flags.parse_args()
    table.run(args.name, BENCHMARKS[args.name], args)


if __name__ == "__main__":
    main()
