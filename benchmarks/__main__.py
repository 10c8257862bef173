"""Run benchmark modules and write their sections of RESULTS.md. Exit code 1 when a floor is
missed."""

import argparse
import importlib
import pkgutil
import sys

import benchmarks
from benchmarks import harness


def names() -> list[str]:
    """Every benchmark module: those with a `run`."""
    found = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    return [
        name for name in found if name not in ("harness", "__main__") and not name.startswith("_")
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=benchmarks.__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(names())} (default: all)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="short rounds; results are not written"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements per row (default 5)")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="length of one measurement (default 3)"
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only rows whose name contains TEXT"
    )
    parser.add_argument(
        "--long", action="store_true", help="also rows that take ten minutes each (soaks)"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(names())
    if unknown:
        parser.error(
            f"no benchmark called {', '.join(sorted(unknown))}; there are {', '.join(names())}"
        )
    options = harness.Options(
        rounds=1 if arguments.quick else arguments.rounds,
        seconds=0.5 if arguments.quick else arguments.seconds,
        only=arguments.only,
        long=arguments.long,
    )
    missed = 0
    harness.byte_compile()
    with harness.machine_lock():
        for name in arguments.names or names():
            module = importlib.import_module(f"benchmarks.{name}")
            print(f"== {module.TITLE}", flush=True)
            rows = module.run(options)
            for row in rows:
                print("  " + row.line(), flush=True)
            missed += sum(row.missed for row in rows)
            if not arguments.quick and not arguments.only:
                harness.write_section(name, module.TITLE, rows, getattr(module, "NOTES", ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
