"""Pretraining on the device: environment, replay and agent in one compiled program, many seeds at once."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import jax

from urlrl.config import PretrainConfig
from urlrl.envs import make_device_env
from urlrl.errors import TrainingDiverged, UserError
from urlrl.runtime import enable_compilation_cache
from urlrl.training.log import Progress, make_progress
from urlrl.training.memory import check_memory
from urlrl.training.recorder import Recorder
from urlrl.training.run import RunFolder
from urlrl.training.saver import Saver, common_steps, restore
from urlrl.training.seeds import Seeds
from urlrl.training.together import Member, drive_together, is_frozen
from urlrl.types import DeviceEnv
from urlrl.verbs.pretrain import (
    announce,
    begin_agent,
    check_online,
    claim,
    coverage_metric,
    make_eval_env,
    products,
)
from urlrl.verbs.runs import run_spec


def pretrain_seeds(
    config: PretrainConfig, seeds: Sequence[int], out: Path | str, *, quiet: bool = False, command: str | None = None
) -> list[Path]:
    """Pretrain one agent per seed, all at once on the device, into the folders `out/seed-<n>`; continues runs of the
    same config that are there.

    Args:
        config: as for `pretrain`; its seed and loop are not looked at.
        seeds: distinct ones.
        quiet, command: as for `pretrain`.

    Returns:
        The folders, in order of `seeds`; each is a run as `pretrain` makes them.

    Raises:
        UserError: as `pretrain`; seeds given twice, an environment without a device version, or too little memory.
        TrainingDiverged: at the end, if seeds produced non-finite numbers; each is left at its last checkpoint.
        Interrupted: a signal stopped the runs; they were saved and can be continued.
    """
    if len(set(seeds)) < len(seeds) or not seeds:
        raise UserError(f"seeds are {', '.join(map(str, seeds))}: expected each once, at least one.")
    folders = {seed: Path(out) / f"seed-{seed}" for seed in seeds}
    return train_on_device(config, folders, quiet=quiet, command=command)


def train_on_device(
    config: PretrainConfig, folders: dict[int, Path], *, quiet: bool, command: str | None
) -> list[Path]:
    """A run for each seed into its folder; see `pretrain_seeds`."""
    enable_compilation_cache()
    spec = run_spec(config)
    env = make_device_env(config.env, episode_steps=config.episode_steps)
    check_online(config, spec)
    config = replace(config, loop="device")
    configs = {seed: replace(config, seed=seed) for seed in folders}
    runs = {seed: RunFolder(folder) for seed, folder in folders.items()}
    with ExitStack() as stack:
        stack.enter_context(products(config))
        for seed, run in runs.items():
            stack.enter_context(run.lock())
            run.check(configs[seed])
        progress = make_progress(quiet)
        stack.callback(progress.close)
        seeds = _begin(configs, env, runs, progress)
        live = [(loop, Saver(run, loop.config, loop, Recorder(run, loop.config, loop)))
                for loop, run in zip(seeds.runs, runs.values()) if not is_frozen(run)]  # fmt: skip
        if live:
            restore([saver for _, saver in live], progress)
        test_env = None
        if config.eval_every and spec.position:
            test_env = stack.enter_context(closing(make_eval_env(config)))
        members = []
        for loop, saver in live:
            claim(saver, loop.config, command, progress)
            measure = coverage_metric(loop.config, test_env) if test_env is not None else None
            members.append(Member(loop, saver, measure))
        drive_together(seeds, members, config, progress)
    _report_frozen(runs)
    return list(folders.values())


def _begin(configs: dict[int, PretrainConfig], env: DeviceEnv, runs: dict[int, RunFolder], progress: Progress) -> Seeds:
    """The runs where they begin. Raises UserError if they need more memory than there is."""
    spec, numbers, config = env.env_spec, ", ".join(map(str, runs)), next(iter(configs.values()))
    places = ", ".join(str(run.path) for run in runs.values())
    announce(config, spec, f"seed{'s' * (len(runs) > 1)} {numbers}, in {places}", progress)
    fresh = not common_steps([run for run in runs.values() if not is_frozen(run)])
    agents = {seed: begin_agent(configs[seed], spec, fresh, progress) for seed in runs}
    seeds = Seeds(config, agents, env, jax.devices())
    used = seeds.mesh.devices.ravel().tolist()
    if len(used) < len(jax.devices()):
        count = len(jax.devices())
        progress.note(f"{len(used)} of {count} devices are used: the most that share {len(runs)} seeds evenly.")
    check_memory(config, seeds.fields, seeds.capacity, list(agents.values()), used)
    return seeds


def _report_frozen(runs: dict[int, RunFolder]) -> None:
    if frozen := [seed for seed, run in runs.items() if is_frozen(run)]:
        raise TrainingDiverged(
            f"Seeds {', '.join(map(str, frozen))} diverged, as diverged.json in their folders says, and are at their "
            f"last checkpoints: expected finite numbers; the other {len(runs) - len(frozen)} are done."
        )
