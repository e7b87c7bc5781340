"""`urlrl export`: a folder of skills, whose name is printed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional, UseAppendAction

from urlrl.cli.arguments import TRUST_RUN, parse, required


@dataclass(frozen=True)
class ExportOptions:
    """Skills as files for another controller: a bundle that the NumPy runtime loads, ONNX graphs, or StableHLO."""

    run: Positional[Path]  # folder of the run
    out: Path | None = None  # folder to write; required
    step: int | None = None  # which checkpoint; the newest by default
    format: Literal["bundle", "onnx", "stablehlo"] = "bundle"  # what to write
    seed: int = 0  # of the episodes that name the skills and are checked against the agent
    rows: int = 2000  # transitions that the bundle brings along, to be told rewards on; 0: none
    prompt: UseAppendAction[tuple[str, ...]] = ()  # a reward in words, as "vx"; it becomes a named skill (repeat it)


def main(argv: list[str]) -> None:
    options = parse(ExportOptions, argv, "export", TRUST_RUN)
    out = required("--out", options.out, "the folder to write")
    from urlrl.verbs.export import export

    print(
        export(
            options.run, out, step=options.step, format=options.format, seed=options.seed, rows=options.rows,
            prompts=options.prompt,
        )
    )  # fmt: skip
