"""`urlrl pretrain`: a run without reward, or one for each of several seeds."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import AvoidSubcommands

from urlrl.agents import find_agent
from urlrl.cli.arguments import TRUST, asks_for_help, check_arguments, take, take_flag
from urlrl.config import OfflineConfig, RunConfig, to_json
from urlrl.errors import UserError, shown
from urlrl.presets import find_preset, starting_config
from urlrl.presets.common import Preset
from urlrl.values import literal, number, number_list


def main(argv: list[str]) -> None:
    """Everything an option can change comes from a preset, or from the agent's own defaults."""
    options = list(argv)
    agent = options.pop(0) if options and not options[0].startswith("-") else take(options, "--agent") or "metra"
    preset_name, out = take(options, "--preset"), take(options, "--out")
    dry_run, quiet, seeds = take_flag(options, "--dry-run"), take_flag(options, "--quiet"), take(options, "--seeds")
    workers = take(options, "--workers")
    changes = _settings(options)
    given = {option.split("=")[0].removeprefix("--") for option in options}
    default = starting_config(agent, preset_name, given)
    options_class = type(default)[find_agent(agent)[1]]  # type: ignore[index]
    if not asks_for_help(options):
        check_arguments(options, options_class, default)
    else:
        print(
            "usage: urlrl pretrain [AGENT] [--preset NAME] [--out DIR] [--seeds 0..7 [--workers N]] [--dry-run] "
            "[--quiet] [OPTIONS]\n\n"
            "--seeds trains several, each into a folder of its own, OUT/seed-N: together on the device where the\n"
            "environment has a device version, else one after another on the host; --workers N trains each in a\n"
            "process of its own, N at a time, and --loop host one after another.\n"
            "--preset OTHER/NAME, as in metra/ant-quick, takes another agent's preset, where AGENT has its settings.\n"
            "--continue-with NAME=VALUE, as in agent.lr=1e-4, changes a setting of a run that has a checkpoint.\n"
            f"{TRUST}\n"
            "AGENT, or --agent AGENT, is a registered name (metra) or module:Class. Options below show the defaults of "
            f"{f'preset {preset_name}' if preset_name else f'agent {agent}'}.\n"
        )
    wanted: Any = AvoidSubcommands[options_class]  # type: ignore[valid-type,misc]
    config = tyro.cli(wanted, args=options, default=default, prog="urlrl pretrain", description="")
    if isinstance(config, OfflineConfig) and not config.data:
        raise UserError(
            f"Agent '{agent}' learns from a dataset here: expected --data DIR (`urlrl data` says how to get one)."
        )
    if seeds is None and workers is not None:
        raise UserError("Option '--workers' is of several runs: expected --seeds with it.")
    if seeds is not None and "seed" in given:
        raise UserError("Options '--seed' and '--seeds' exclude each other: expected one of them.")
    processes = None if workers is None else number("--workers", workers)
    if seeds is not None and processes is None:
        config, processes = _loop_of_seeds(config, "loop" in given)
    where = preset_name or config.env or Path(getattr(config, "data", "")).name
    name = f"{agent}-{where}".replace(":", ".").replace("/", ".")
    folder = Path(out or f"runs/{name if seeds else f'{name}-{config.seed}'}")
    many = None if seeds is None else number_list("--seeds", seeds)
    if not dry_run:
        if preset_name:
            _check_gpu(preset_name, find_preset(agent, preset_name))
        command = shlex.join(["urlrl", "pretrain", *argv])
        return _train(config, many, processes, folder, {"continue_with": changes, "quiet": quiet, "command": command})
    config = _checked(config)
    asked = {"seeds": many, "continue_with": changes}
    asked = {name: value for name, value in asked.items() if value}
    print(json.dumps({"out": str(folder), **asked, "config": to_json(config)}, indent=2))


def _loop_of_seeds(config: RunConfig, is_given: bool) -> tuple[RunConfig, int | None]:
    """The config by which several seeds are trained, and how many at a time: None is together on the device, as is
    everything that has a device version, unless the loop was given."""
    from urlrl.envs import device_name

    if isinstance(config, OfflineConfig):
        return config, None
    together = config.loop == "device" or (not is_given and device_name(config.env) == config.env)
    return (dataclasses.replace(config, loop="device"), None) if together else (config, 1)


def _checked(config: RunConfig) -> RunConfig:
    """The config with what a dataset says of itself. Raises UserError where the run could not begin by its environment
    or data."""
    from urlrl.data.dataset import Dataset
    from urlrl.runs.begin import begin, with_data

    if isinstance(config, OfflineConfig):
        return with_data(config, Dataset(config.data))[0]
    with begin(config, config.loop == "device") as begun:
        return begun.config


def _settings(options: list[str]) -> dict[str, Any]:
    """Remove every --continue-with NAME=VALUE; returns the values by name."""
    settings = {}
    while (said := take(options, "--continue-with")) is not None:
        name, equals, text = said.partition("=")
        if not equals:
            raise UserError(f"Option '--continue-with' is '{shown(said)}': expected NAME=VALUE, as in agent.lr=1e-4.")
        settings[name.replace("-", "_")] = literal(text)
    return settings


def _check_gpu(name: str, chosen: Preset) -> None:
    """Say so where a preset is made for a GPU and there is none."""
    import jax

    from urlrl.runtime import check_backend

    check_backend()
    if chosen.for_gpu and jax.default_backend() == "cpu":
        print(
            f"Preset '{name}' is made for a GPU (it takes: {chosen.cost}), and JAX has only the CPU here: the "
            "run may take days. Ctrl-C stops it and saves.",
            file=sys.stderr,
        )


def _train(config: Any, seeds: list[int] | None, workers: int | None, folder: Path, options: dict[str, Any]) -> None:
    """A run into `folder`, or one for each of the seeds into folders in it, with these options of `pretrain`; None
    workers train the seeds together."""
    from urlrl.verbs.pretrain import pretrain, pretrain_seeds
    from urlrl.verbs.seeds import pretrain_each

    first, made = folder, shlex.quote(str(folder))
    if seeds is None:
        pretrain(config, folder, **options)
    else:
        made = f"{made}/seed-*"
        if workers is None:
            first = pretrain_seeds(config, seeds, folder, **options)[0]
        else:
            first = pretrain_each(config, seeds, folder, workers=workers, **options)[0]
    suite = _suite_option(first) if isinstance(config, OfflineConfig) else ""
    print(f"Done. Next: urlrl evaluate {shlex.quote(str(first))}{suite}; urlrl report {made}")


def _suite_option(folder: Path) -> str:
    """What scores an agent that learned from data, where there is a protocol for its environment."""
    from urlrl.training.run import RunFolder
    from urlrl.verbs.evaluate_suite import suite_on

    suite = suite_on(RunFolder(folder).manifest()["config"]["env"])
    return f" --suite {suite}" if suite else ""
