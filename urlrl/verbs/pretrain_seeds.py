"""Pretraining of many seeds at once on the device: in one compiled program agent, environment and replay, or agent and
dataset."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh

from urlrl.config import OfflineConfig, PretrainConfig, RunConfig
from urlrl.data.dataset import Dataset
from urlrl.data.replay import agent_fields
from urlrl.envs import make_device_env
from urlrl.errors import TrainingDiverged, UserError
from urlrl.runtime import enable_compilation_cache
from urlrl.training.log import Progress, make_progress
from urlrl.training.memory import Needs, check_data_memory, check_memory, explained, needs
from urlrl.training.offline_seeds import OfflineSeeds
from urlrl.training.recorder import NoRecord, Recorder
from urlrl.training.run import RunFolder
from urlrl.training.saver import Saver, common_steps, restore
from urlrl.training.seeds import Seeds
from urlrl.training.together import Lanes, Member, drive_together, is_frozen
from urlrl.types import DeviceEnv, EnvSpec
from urlrl.verbs.pretrain import (
    announce,
    announce_data,
    check_online,
    claim,
    coverage_metric,
    data_normalizer,
    make_eval_env,
    make_normalizer,
    products,
    with_data,
)
from urlrl.verbs.runs import agent_shapes, create_agent, run_spec


def pretrain_seeds(
    config: RunConfig, seeds: Sequence[int], out: Path | str, *, quiet: bool = False, command: str | None = None
) -> list[Path]:
    """Pretrain one agent per seed, all at once on the device, into the folders `out/seed-<n>`; continues runs of the
    same config that are there.

    Args:
        config: as for `pretrain`; its seed, and the loop of a `PretrainConfig`, are not looked at.
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
    return train_together(config, folders, quiet=quiet, command=command)


def train_together(config: RunConfig, folders: dict[int, Path], *, quiet: bool, command: str | None) -> list[Path]:
    """A run for each seed into its folder; see `pretrain_seeds`."""
    enable_compilation_cache()
    begin: Callable[..., tuple[Lanes, list[Saver]]]
    if isinstance(config, OfflineConfig):
        dataset = Dataset(config.data).verify()
        config, begin = with_data(config, dataset), partial(_begin_offline, dataset)
        spec = run_spec(config)
    else:
        spec = run_spec(config)  # Of a name that there is not, this tells the nearest.
        env = make_device_env(config.env, episode_steps=config.episode_steps, root_position=config.root_position)
        check_online(config, spec)
        config, begin = replace(config, loop="device"), partial(_begin_online, env)
    configs = {seed: replace(config, seed=seed) for seed in folders}
    runs = {seed: RunFolder(folder) for seed, folder in folders.items()}
    with ExitStack() as stack:
        stack.enter_context(products(config))
        for seed, run in runs.items():
            stack.enter_context(run.lock())
            run.check(configs[seed])
        progress = make_progress(quiet)
        stack.callback(progress.close)
        needed = needs(config, spec, agent_shapes(config, spec))
        stack.enter_context(explained(needed))
        seeds, savers = begin(spec, needed, configs, runs, progress)
        live = [pair for pair in zip(seeds.runs, savers) if not is_frozen(pair[1].run)]
        if live:
            restore([saver for _, saver in live], progress)
        test_env = None
        if config.eval_every and config.env and run_spec(config).position:
            test_env = stack.enter_context(closing(make_eval_env(config)))
        members = []
        for loop, saver in live:
            claim(saver, loop.config, command, progress)
            measure = coverage_metric(loop.config, test_env) if test_env is not None else None
            members.append(Member(loop, saver, measure))
        drive_together(seeds, members, config, progress)
    _report_frozen(runs)
    return list(folders.values())


def _begin_online(
    env: DeviceEnv,
    spec: EnvSpec,
    needed: Needs,
    configs: dict[int, PretrainConfig],
    runs: dict[int, RunFolder],
    progress: Progress,
) -> tuple[Lanes, list[Saver]]:
    """The runs where they begin. Raises UserError if they need more memory than there is."""
    config = next(iter(configs.values()))
    agents = {seed: create_agent(configs[seed], spec) for seed in runs}
    announce(config, spec, agent_fields(next(iter(agents.values())), spec), _which(runs), progress)
    if _are_fresh(runs):
        agents = {
            seed: agent.replace(normalizer=make_normalizer(configs[seed], spec, progress))
            for seed, agent in agents.items()
        }
    seeds = Seeds(config, agents, env, jax.devices())
    used = _devices(seeds.mesh, len(runs), progress)
    check_memory(config, needed, seeds.fields, seeds.capacity, len(agents), used)
    pairs = zip(runs.values(), seeds.runs)
    return seeds, [Saver(run, loop.config, loop, Recorder(run, loop.config, loop)) for run, loop in pairs]


def _begin_offline(
    dataset: Dataset,
    spec: EnvSpec,
    needed: Needs,
    configs: dict[int, OfflineConfig],
    runs: dict[int, RunFolder],
    progress: Progress,
) -> tuple[Lanes, list[Saver]]:
    """As `_begin_online`, on a dataset."""
    config = next(iter(configs.values()))
    announce_data(config, dataset, _which(runs), progress)
    agents = {seed: create_agent(configs[seed], spec) for seed in runs}
    if _are_fresh(runs):
        normalizer = data_normalizer(config, dataset)  # One pass over the data for all seeds.
        agents = {seed: agent.replace(normalizer=normalizer) for seed, agent in agents.items()}
    seeds = OfflineSeeds(config, agents, dataset, jax.devices())
    used = _devices(seeds.mesh, len(runs), progress)
    check_data_memory(config, needed, *seeds.sizes(), len(agents), used)
    return seeds, [Saver(run, loop.config, loop, NoRecord()) for run, loop in zip(runs.values(), seeds.runs)]


def _which(runs: dict[int, RunFolder]) -> str:
    places = ", ".join(str(run.path) for run in runs.values())
    return f"seed{'s' * (len(runs) > 1)} {', '.join(map(str, runs))}, in {places}"


def _are_fresh(runs: dict[int, RunFolder]) -> bool:
    """No checkpoint will be restored."""
    return not common_steps([run for run in runs.values() if not is_frozen(run)])


def _devices(mesh: Mesh, num_seeds: int, progress: Progress) -> list[jax.Device]:
    """Those that are used; says so if some are not."""
    used, count = mesh.devices.ravel().tolist(), len(jax.devices())
    if len(used) < count:
        progress.note(f"{len(used)} of {count} devices are used: the most that share {num_seeds} seeds evenly.")
    return used


def _report_frozen(runs: dict[int, RunFolder]) -> None:
    if frozen := [seed for seed, run in runs.items() if is_frozen(run)]:
        raise TrainingDiverged(
            f"Seeds {', '.join(map(str, frozen))} diverged, as diverged.json in their folders says, and are at their "
            f"last checkpoints: expected finite numbers; the other {len(runs) - len(frozen)} are done."
        )
