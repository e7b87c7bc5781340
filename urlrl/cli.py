"""The command line, `urlrl VERB`."""

import dataclasses
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

import tyro
from tyro.conf import AvoidSubcommands, Positional

from urlrl.arguments import asks_for_help, check_arguments, literal, number, number_list, parse, take, take_flag
from urlrl.config import MAX_SEED
from urlrl.errors import UserError, check, shown, unknown
from urlrl.loading import OPTIONS, given

USAGE = """\
urlrl: unsupervised reinforcement learning in JAX

  urlrl pretrain metra --preset half-cheetah-quick --seed 0 --out runs/x
                             pretrain without reward; the same command continues a run
  urlrl evaluate runs/x      coverage and zero-shot goals, beside the random policy
  urlrl prompt runs/x "vx - 0.1 * energy"
                             ask for a reward, a --goal x=30 or a --demo FILE, and measure what it does
  urlrl report runs/x        a page with trajectories, curves, latents and videos
  urlrl adapt runs/x --task half_cheetah_goal
                             the ladder: prompt, search, hierarchy, fine-tuning, from scratch, on one axis of steps
  urlrl export runs/x --out bundles/x
                             skills for another controller: a bundle that NumPy runs, ONNX or StableHLO
  urlrl data convert PATH --out data/x
                             datasets of runs, ExORL, OGBench, D4RL, Minari: `urlrl data` lists what can be done
  urlrl agents               the agents, what they learn from and what they can be asked
  urlrl tasks                the tasks, and the environments whose agents can be asked for them
  urlrl presets              named settings, where they come from and what they cost
  urlrl doctor               versions, backend, graphics, known-bad pairs

Every verb takes --trust: a run or a dataset may name code of yours, which is then imported. evaluate, prompt, report,
adapt and export also take --env NAME and --agent NAME, the names that the run must have (docs/security.md).

`urlrl VERB --help` lists the options of a verb. Exit codes: 0 done, 2 bad input, 3 training diverged,
75 stopped by a signal and saved (the same command continues)."""
READERS = ("evaluate", "prompt", "report", "adapt", "export")  # verbs whose first argument is a run


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    verbs = {
        "pretrain": _pretrain,
        "evaluate": _evaluate,
        "prompt": _prompt,
        "report": _report,
        "adapt": _adapt,
        "export": _export,
        "data": _data,
        "agents": _agents,
        "tasks": _tasks,
        "presets": _presets,
        "doctor": _doctor,
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    try:
        if argv[0] == "--version":
            import urlrl

            print(urlrl.__version__)
        elif argv[0] not in verbs:
            raise unknown("command", argv[0], verbs)
        else:
            verb, *options = argv
            names = OPTIONS if verb in READERS else {}
            words = {field: name for field, option in names.items() if (name := take(options, option)) is not None}
            with given(take_flag(options, "--trust"), words):
                verbs[verb](options)
    except UserError as error:
        print(f"urlrl: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # The reader, `head` for one, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Flushing at exit has somewhere to go.
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        from urlrl.training.memory import out_of_memory

        if (said := out_of_memory(error)) is None:
            raise
        print(f"urlrl: {said}.", file=sys.stderr)
        sys.exit(UserError.exit_code)
    except OSError as error:  # A disk that is full, a file that may not be read.
        print(f"urlrl: {shown(error.filename or 'a file')}: {error.strerror or error}.", file=sys.stderr)
        sys.exit(UserError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _pretrain(argv: list[str]) -> None:
    """Everything an option can change comes from a preset, or from the agent's own defaults."""
    from urlrl.agents import find_agent
    from urlrl.config import OfflineConfig, PretrainConfig, to_json
    from urlrl.presets import learns_from_data, preset

    options = list(argv)
    agent = options.pop(0) if options and not options[0].startswith("-") else take(options, "--agent") or "metra"
    preset_name, out = take(options, "--preset"), take(options, "--out")
    dry_run, quiet, seeds = take_flag(options, "--dry-run"), take_flag(options, "--quiet"), take(options, "--seeds")
    changes = _settings(options)
    _, agent_config = find_agent(agent)
    given = {option.split("=")[0] for option in options}
    from_data = "--data" in given or ("--env" not in given and learns_from_data(agent))
    kind = OfflineConfig if from_data else PretrainConfig
    default = preset(agent, preset_name) if preset_name else kind(agent=agent_config(), agent_name=agent)
    if "--data" in given and not isinstance(default, OfflineConfig):
        raise UserError(f"Preset '{preset_name}' is of a run in an environment: expected one without --data.")
    options_class = type(default)[agent_config]  # type: ignore[index]
    if not asks_for_help(options):
        check_arguments(options, options_class, default)
    else:
        print(
            "usage: urlrl pretrain [AGENT] [--preset NAME] [--out DIR] [--seeds 0..7] [--dry-run] [--quiet] "
            "[OPTIONS]\n\n"
            "--seeds trains several at once on the device, each into a folder of its own, OUT/seed-N.\n"
            "--continue-with NAME=VALUE, as in agent.lr=1e-4, changes a setting of a run that has a checkpoint.\n"
            "AGENT is a registered name (metra) or module:Class. Options below show the defaults of "
            f"{f'preset {preset_name}' if preset_name else f'agent {agent}'}.\n"
        )
    wanted: Any = AvoidSubcommands[options_class]  # type: ignore[valid-type,misc]
    config = tyro.cli(wanted, args=options, default=default, prog="urlrl pretrain", description="")
    if isinstance(config, OfflineConfig) and not config.data:
        raise UserError(
            f"Agent '{agent}' learns from a dataset here: expected --data DIR (`urlrl data` says how to get one)."
        )
    if seeds is not None:
        if "--seed" in given:
            raise UserError("Options '--seed' and '--seeds' exclude each other: expected one of them.")
        if isinstance(config, PretrainConfig):
            config = dataclasses.replace(config, loop="device")
    where = preset_name or config.env.replace(":", ".") or Path(getattr(config, "data", "")).name
    name = f"{agent.replace(':', '.')}-{where}"
    folder = Path(out or f"runs/{name if seeds else f'{name}-{config.seed}'}")
    many = None if seeds is None else number_list("--seeds", seeds)
    if not dry_run:
        command = shlex.join(["urlrl", "pretrain", *argv])
        return _train(config, many, folder, {"continue_with": changes, "quiet": quiet, "command": command})
    if isinstance(config, OfflineConfig):
        from urlrl.data.dataset import Dataset
        from urlrl.runs.begin import with_data

        config, _ = with_data(config, Dataset(config.data))
    asked = {"seeds": many, "continue_with": changes}
    asked = {name: value for name, value in asked.items() if value}
    print(json.dumps({"out": str(folder), **asked, "config": to_json(config)}, indent=2))


def _settings(options: list[str]) -> dict[str, Any]:
    """Remove every --continue-with NAME=VALUE; returns the values by name."""
    settings = {}
    while (said := take(options, "--continue-with")) is not None:
        name, equals, text = said.partition("=")
        if not equals:
            raise UserError(f"Option '--continue-with' is '{shown(said)}': expected NAME=VALUE, as in agent.lr=1e-4.")
        settings[name.replace("-", "_")] = literal(text)
    return settings


def _train(config: Any, seeds: list[int] | None, folder: Path, options: dict[str, Any]) -> None:
    """A run into `folder`, or one for each of the seeds into folders in it, with these options of `pretrain`."""
    from urlrl.config import OfflineConfig
    from urlrl.verbs.pretrain import pretrain, pretrain_seeds

    first, made = folder, str(folder)
    if seeds is not None:
        first, made = pretrain_seeds(config, seeds, folder, **options)[0], f"{folder}/seed-*"
    else:
        pretrain(config, folder, **options)
    suite = _suite_option(first) if isinstance(config, OfflineConfig) else ""
    print(f"Done. Next: urlrl evaluate {first}{suite}; urlrl report {made}")


def _suite_option(folder: Path) -> str:
    """What scores an agent that learned from data, where there is a protocol for its environment."""
    from urlrl.training.run import RunFolder
    from urlrl.verbs.zero_shot_suite import suite_on

    suite = suite_on(RunFolder(folder).manifest()["config"]["env"])
    return f" --suite {suite}" if suite else ""


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Coverage and zero-shot goals of a run, beside the random policy; or, with --suite, its returns on the tasks of a
    zero-shot protocol, beside floors and ceilings."""

    run: Positional[Path]  # folder of the run
    suite: str | None = None  # a protocol, as in exorl-v1/walker; `urlrl tasks` lists them
    samples: int | None = None  # with --suite: labelled transitions that a reward prompt shows; the protocol's own
    json: Path | None = None  # also write the result to this file
    video: Path | None = None  # of what an adaptation left: also render episodes to this .mp4 or .webp file
    step: int | None = None  # which checkpoint; the newest by default
    seed: int = 0  # of skills, goals, resets, samples and sampled actions

    def __post_init__(self):
        check("seed", self.seed, 0, MAX_SEED)


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """One self-contained page: trajectories, curves, latents, goals, videos, config. Of several runs that differ in
    their seed, a table instead: interquartile means with 95 % intervals."""

    runs: Positional[tuple[Path, ...]]  # folder of the run, or of each
    step: int | None = None  # which checkpoint; the newest by default
    json: Path | None = None  # of several runs: also write the table to this file


def _evaluate(argv: list[str]) -> None:
    options = parse(EvaluateOptions, argv, "evaluate")
    if options.suite is not None:
        if options.video is not None:
            raise UserError("Option '--video' is of what an adaptation left: expected it without --suite.")
        from urlrl.verbs.zero_shot_suite import evaluate_suite, show

        given = {name: getattr(options, name) for name in ("samples", "seed", "step")}
        return show(evaluate_suite(options.run, options.suite, json_file=options.json, **given))
    if options.samples is not None:
        raise UserError("Option '--samples' is of a suite: expected --suite NAME with it.")
    from urlrl.verbs.evaluate import evaluate

    result = evaluate(options.run, step=options.step, seed=options.seed, json_file=options.json, video=options.video)
    (_print_task_scores if "task" in result else _print_evaluation)(result)


@dataclasses.dataclass(frozen=True)
class PromptOptions:
    """Ask a run's agent for a reward, a goal or a demonstration, and measure what it does beside the random policy.
    A REWARD follows RUN: arithmetic on the names that --list shows, as in "vx * upright - 0.1 * energy"."""

    run: Positional[Path]  # folder of the run
    goal: str | None = None  # metres by coordinate, as in x=10,y=-5
    demo: Path | None = None  # observations of one episode: .safetensors, .npy or .csv
    video: Path | None = None  # also render the first episode to this .mp4 or .webp file
    out: Path | None = None  # folder of what is written; <run>/prompts/<name> by default
    json: Path | None = None  # also write the result to this file
    samples: int = 5120  # labelled transitions of the run that the agent is shown
    step: int | None = None  # which checkpoint; the newest by default
    seed: int = 0  # of samples, resets and random actions
    list: bool = False  # only list the names that a reward can use


def _prompt(argv: list[str]) -> None:
    argv, reward = list(argv), None
    if len(argv) > 1 and not any(token.startswith("--") for token in argv[:2]) and "-h" not in argv:
        reward = argv.pop(1)  # It may begin with a minus, so no parser of options gets to see it.
    options = parse(PromptOptions, argv, "prompt")
    from urlrl.evaluation.prompting import parse_goal
    from urlrl.verbs.prompt import list_features, prompt, show, show_features

    if options.list:
        return show_features(list_features(options.run))
    goal = None if options.goal is None else parse_goal(options.goal)
    given = {name: getattr(options, name) for name in ("demo", "video", "out", "samples", "step", "seed")}
    show(prompt(options.run, reward, goal=goal, json_file=options.json, **given))


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Skills as files for another controller: a bundle that the NumPy runtime loads, ONNX graphs, or StableHLO."""

    run: Positional[Path]  # folder of the run
    out: Path | None = None  # folder to write; required
    step: int | None = None  # which checkpoint; the newest by default
    format: Literal["bundle", "onnx", "stablehlo"] = "bundle"  # what to write
    seed: int = 0  # of the episodes that name the skills and are checked against the agent

    def __post_init__(self):
        check("seed", self.seed, 0, MAX_SEED)


def _export(argv: list[str]) -> None:
    options = parse(ExportOptions, argv, "export")
    if options.out is None:  # A field without a default would be refused in tyro's box.
        raise UserError("Option '--out' is missing: expected the folder to write.")
    from urlrl.verbs.export import export

    print(export(options.run, options.out, step=options.step, format=options.format, seed=options.seed))


def _report(argv: list[str]) -> None:
    options = parse(ReportOptions, argv, "report")
    from urlrl.verbs.report import report

    if len(options.runs) > 1:
        from urlrl.verbs.report_seeds import report_seeds, show

        return show(report_seeds(options.runs, step=options.step, json_file=options.json))
    if options.json is not None:
        raise UserError("Option '--json' is of a table of several runs: expected more than one folder with it.")
    print(report(options.runs[0], step=options.step))


def _adapt(argv: list[str]) -> None:
    """The verb's own options come first, every other one is a field of AdaptConfig."""
    from urlrl.adaptation.config import METHODS, AdaptConfig

    options = list(argv)
    if asks_for_help(options):
        print(
            "usage: urlrl adapt RUN --task TASK [--method METHOD] [--seeds 0..4] [--step N] [--out DIR] [--quiet] "
            "[OPTIONS]\n       urlrl adapt RUN --suite SUITE [--seeds 0..4] [--out DIR] [--quiet]\n\n"
            f"METHOD is one of {', '.join(METHODS)}, or all (default). `urlrl tasks` lists the tasks.\n"
        )
        tyro.cli(AdaptConfig, args=options, prog="urlrl adapt", description="")
    run = options.pop(0) if options and not options[0].startswith("-") else None
    task, method = take(options, "--task"), take(options, "--method")
    seeds, step, out = take(options, "--seeds") or "0..4", take(options, "--step"), take(options, "--out")
    suite, quiet = take(options, "--suite"), take_flag(options, "--quiet")
    if run and suite and not (task or method or step or options):
        from urlrl.verbs.suite import score_suite

        _print_suite(score_suite(run, suite, seeds=number_list("--seeds", seeds), out=out, quiet=quiet))
        return
    if suite:
        raise UserError(
            "A suite fixes tasks, methods and settings: expected urlrl adapt RUN --suite SUITE [--seeds 0..4]."
        )
    if run is None or task is None:
        raise UserError("`urlrl adapt` needs a run, first, and a task: expected urlrl adapt RUN --task TASK.")
    method = method or "all"
    if method != "all" and method not in METHODS:
        raise unknown("method", method, [*METHODS, "all"])
    check_arguments(options, AdaptConfig)
    config = tyro.cli(AdaptConfig, args=options, prog="urlrl adapt", description="")
    from urlrl.verbs.adapt import adapt

    result = adapt(
        run,
        task,
        list(METHODS) if method == "all" else [method],
        seeds=number_list("--seeds", seeds),
        config=config,
        step=None if step is None else number("--step", step),
        out=out,
        quiet=quiet,
    )
    _print_ladder(result)
    print(Path(out or Path(run) / "adapt") / task.replace(":", ".") / "ladder.png")


def _data(argv: list[str]) -> None:
    from urlrl.verbs.data_cli import main as data

    data(argv)


def _agents(argv: list[str]) -> None:
    parse(NoOptions, argv, "agents")
    from rich.console import Console
    from rich.table import Table

    from urlrl.verbs.agents import HEADINGS, list_agents

    table = Table(*HEADINGS, box=None, pad_edge=False)
    for row in list_agents():
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 240, markup=False).print(table)


def _tasks(argv: list[str]) -> None:
    parse(NoOptions, argv, "tasks")
    from rich.table import Table

    from urlrl.console import make_console
    from urlrl.tasks.catalogue import TASKS

    table = Table("task", "acted out in", "for agents pretrained on", box=None, pad_edge=False)
    for name, make in TASKS.items():
        task = make()
        table.add_row(name, task.env, ", ".join(task.runs_on))
    console = make_console()
    console.print(table)
    from urlrl.adaptation.suite import URLB
    from urlrl.verbs.zero_shot_suite import SUITES

    shown = [name for name in SUITES if not name.startswith("ogbench-v1/")]
    count = len(SUITES) - len(shown)
    console.print(
        f"\nSuites of `urlrl evaluate RUN --suite`: {', '.join(shown)}, and {count} as ogbench-v1/antmaze-medium"
    )
    console.print(f"Suites of `urlrl adapt RUN --suite`: {', '.join(URLB)}")


def _print_ladder(result: dict[str, Any]) -> None:
    from rich.table import Table

    from urlrl.adaptation.ladder import LABELS, estimate
    from urlrl.console import make_console

    console = make_console(160)
    console.print(
        f"{result['task']}: pretrained for {result['pretrain_steps']:,} steps without reward on {result['env']}, then "
        f"{result['steps']:,} steps in the task"
    )
    columns = ["", "seeds", "return at the end", "mean over the budget", "over scratch"]
    expert = result["expert"]
    table = Table(*columns, *(["of the expert"] if expert else []), box=None, pad_edge=False)
    for method, entry in result["methods"].items():
        cells = [LABELS[method], ", ".join(map(str, entry["seeds"]))]
        cells += [estimate(entry[name]) for name in ("final", "area", "over_scratch")]
        table.add_row(*cells, *([f"{entry['normalised']:.0%}"] if expert else []))
    for name, floor in result["floors"].items():
        table.add_row(
            f"({name})", "", f"{floor['mean']:.1f}", "", "", *([f"{floor['mean'] / expert:.0%}"] if expert else [])
        )
    console.print(table)
    console.print(
        "Interquartile means over seeds with 95 % bootstrap intervals. Over scratch: difference of the means over the "
        "budget, paired by seed, with its 95 % Student interval."
    )
    for note in result["notes"]:
        console.print(note)


def _print_suite(result: dict[str, Any]) -> None:
    from rich.table import Table

    from urlrl.adaptation.ladder import LABELS, estimate
    from urlrl.console import make_console

    console = make_console(160)
    tasks = list(result["experts"])
    console.print(f"{result['suite']}, pretrained on {result['env']}: share of the expert's return")
    table = Table("pretraining steps", "", *tasks, "all", box=None, pad_edge=False)
    for snapshot, methods in result["scores"].items():
        for method, score in methods.items():
            shares = [score["normalised"].get(task) for task in tasks]
            means = ["" if share is None else f"{sum(share) / len(share):.2f}" for share in shares]
            steps = "" if method == "scratch" else f"{snapshot:,}"
            table.add_row(steps, LABELS[method], *means, estimate(score["iqm"], 2))
    for name in ("random", "zero action", "standing still"):
        floors = [result["floors"][task].get(name, {}).get("mean") for task in tasks]
        if None not in floors:
            shares = [floor / result["experts"][task] for floor, task in zip(floors, tasks)]
            table.add_row("", f"({name})", *(f"{share:.2f}" for share in shares), f"{sum(shares) / len(shares):.2f}")
    console.print(table)
    console.print("All: interquartile mean over tasks and seeds, 95 % stratified bootstrap interval.")
    for note in result["notes"]:
        console.print(note)


def _presets(argv: list[str]) -> None:
    parse(NoOptions, argv, "presets")
    from rich.table import Table

    from urlrl.console import make_console
    from urlrl.presets import all_presets

    table = Table("agent", "preset", "environment", "steps", "settings from", "takes", box=None, pad_edge=False)
    for agent, presets in all_presets().items():
        for name, entry in presets.items():
            where = entry.config.env or "a dataset"
            table.add_row(agent, name, where, f"{entry.config.steps:,}", entry.source, entry.cost)
    make_console(240).print(table)


def _doctor(argv: list[str]) -> None:
    parse(NoOptions, argv, "doctor")
    from urlrl.doctor import diagnose

    if not diagnose().show():
        sys.exit(1)


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """No options."""


def _print_task_scores(result: dict[str, Any]) -> None:
    """Of what an adaptation left."""
    print(f"{result['task']}, after {result['step']:,} steps in the task, evaluation seed {result['seed']}")
    for name, score in {result["method"]: result["policy"], **result["floors"]}.items():
        error = f" +- {score['standard_error']:.2f}" if "standard_error" in score else ""
        print(f"return {score['mean']:.2f}{error}  ({name})")
    if result["expert"] is not None:
        print(f"return {result['expert']:.2f}  (published expert)")
    for note in result["notes"]:
        print(note)


def _print_evaluation(result: dict[str, Any]) -> None:
    from rich.table import Table

    from urlrl.console import make_console
    from urlrl.evaluation.gap import beside, columns

    console = make_console()
    console.print(f"{result['env']}, step {result['step']:,}, evaluation seed {result['seed']}")
    table = Table("", *columns(result), box=None, pad_edge=False)
    if result["coverage"]:
        table.add_row("coverage, 1 m cells", *map(str, beside(result, "coverage")))
    if result["goals"]:
        labels = {"final_distance": "final goal distance, m", "closest_distance": "closest goal distance, m"}
        for name in result["goals"]["agent"]:
            kind, _, radius = name.partition("_")
            label = labels.get(name, f"goals: {kind} within {radius} m")
            table.add_row(label, *(f"{score:.3f}" for score in beside(result, "goals", name)))
    if table.row_count:
        console.print(table)
    for note in result["notes"]:
        console.print(note)
