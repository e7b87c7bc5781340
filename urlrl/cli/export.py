"""`urlrl export`: a folder of skills, whose name is printed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from urlrl.cli.arguments import TRUST_RUN, parse
from urlrl.config import MAX_SEED
from urlrl.errors import UserError, check


@dataclass(frozen=True)
class ExportOptions:
    """Skills as files for another controller: a bundle that the NumPy runtime loads, ONNX graphs, or StableHLO."""

    run: Positional[Path]  # folder of the run
    out: Path | None = None  # folder to write; required
    step: int | None = None  # which checkpoint; the newest by default
    format: Literal["bundle", "onnx", "stablehlo"] = "bundle"  # what to write
    seed: int = 0  # of the episodes that name the skills and are checked against the agent

    def __post_init__(self):
        check("seed", self.seed, 0, MAX_SEED)


def main(argv: list[str]) -> None:
    options = parse(ExportOptions, argv, "export", TRUST_RUN)
    if options.out is None:  # A field without a default would be refused in tyro's box.
        raise UserError("Option '--out' is missing: expected the folder to write.")
    from urlrl.verbs.export import export

    print(export(options.run, options.out, step=options.step, format=options.format, seed=options.seed))
