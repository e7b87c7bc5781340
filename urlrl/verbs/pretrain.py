"""Pretraining without reward: one run, or one for each of several seeds, which advance together on the device."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from urlrl.cells import count_cells
from urlrl.config import PretrainConfig, RunConfig, to_json
from urlrl.data.dataset import Dataset
from urlrl.data.rows import Fields, agent_fields
from urlrl.errors import UserError
from urlrl.evaluation import coverage, diagnostics
from urlrl.runs.begin import Begun, agent_shapes, begin, create_agent, make_eval_env, normalized
from urlrl.runtime import enable_compilation_cache, made_elsewhere, versions
from urlrl.streams import env_seed, stream
from urlrl.training.driver import Measure, Member, drive, raise_diverged
from urlrl.training.host import Host
from urlrl.training.log import Progress, make_progress
from urlrl.training.loop import Loop
from urlrl.training.memory import Needs, check_data_memory, check_host_memory, check_memory, explained, needs
from urlrl.training.offline import Offline
from urlrl.training.offline_seeds import OfflineSeeds
from urlrl.training.recorder import NoRecord, Recorder
from urlrl.training.run import NONE, RunFolder
from urlrl.training.saver import Saver, common_steps, in_step, restore
from urlrl.training.seeds import Seeds
from urlrl.training.stop import stop_requested
from urlrl.types import EnvSpec, HostEnv

ADVICE = "; --continue-with changes a setting from there on"
PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32"}  # a config's word -> JAX's


def pretrain(
    config: RunConfig,
    out: Path | str,
    *,
    continue_with: Mapping[str, Any] = NONE,
    quiet: bool = False,
    command: str | None = None,
) -> Path:
    """Pretrain without reward into the folder `out`; continues a run of the same config that is there.

    Args:
        config: see `urlrl.preset(agent, name)` and `dataclasses.replace`; an `OfflineConfig` learns from a dataset.
        continue_with: other values of settings, as in {"agent.lr": 1e-4}, for a run that has a checkpoint: it goes on
            from there with them, and its config.json says so. Those that leave the environment and all shapes as they
            are can change.
        quiet: show no progress.
        command: what the run's config.json gives as the way to repeat it.

    Returns:
        The folder.

    Raises:
        UserError: bad config, environment or data, or the folder holds another run.
        TrainingDiverged: non-finite numbers; the last checkpoint is whole.
        Interrupted: a signal stopped the run; it was saved and can be continued.
    """
    on_device = isinstance(config, PretrainConfig) and config.loop == "device"
    return _train(config, {config.seed: Path(out)}, on_device, continue_with, quiet, command)[0]


def pretrain_seeds(
    config: RunConfig,
    seeds: Sequence[int],
    out: Path | str,
    *,
    continue_with: Mapping[str, Any] = NONE,
    quiet: bool = False,
    command: str | None = None,
) -> list[Path]:
    """Pretrain one agent per seed on the device, into the folders `out/seed-<n>`; continues runs of the same config
    that are there. Seeds that are in step advance together, as all do in a new run.

    Args:
        config: as for `pretrain`; its seed, and the loop of a `PretrainConfig`, are not looked at.
        seeds: distinct ones.
        continue_with, quiet, command: as for `pretrain`.

    Returns:
        The folders, in order of `seeds`; each is a run as `pretrain` makes them.

    Raises:
        UserError: as `pretrain`; seeds given twice, an environment without a device version, or too little memory.
        TrainingDiverged: at the end, if seeds produced non-finite numbers; each is left at its last checkpoint.
        Interrupted: a signal stopped the runs; they were saved and can be continued.
    """
    folders = seed_folders(out, seeds)
    if isinstance(config, PretrainConfig):
        config = replace(config, loop="device")
    return _train(config, folders, True, continue_with, quiet, command)


def seed_folders(out: Path | str, seeds: Sequence[int]) -> dict[int, Path]:
    """By seed. Raises UserError where there is none, or one twice."""
    if len(set(seeds)) < len(seeds) or not seeds:
        raise UserError(f"seeds are {', '.join(map(str, seeds))}: expected each once, at least one.")
    return {seed: Path(out) / f"seed-{seed}" for seed in seeds}


def _train(
    config: RunConfig,
    folders: dict[int, Path],
    on_device: bool,
    settings: Mapping[str, Any],
    quiet: bool,
    command: str | None,
) -> list[Path]:
    """A run for each seed into its folder; `settings` are `continue_with`."""
    enable_compilation_cache()
    runs, members = {seed: RunFolder(folder) for seed, folder in folders.items()}, list[Member]()
    with ExitStack() as stack:
        progress = make_progress(quiet)
        stack.callback(progress.close)
        stop = stack.enter_context(stop_requested(progress))
        begun = stack.enter_context(begin(config, on_device))
        configs = {seed: replace(begun.config, seed=seed) for seed in runs}
        for run in runs.values():
            stack.enter_context(run.lock())
        configs = {seed: run.check(configs[seed], settings) for seed, run in runs.items()}
        for seeds in _groups(runs, configs):
            group, these = begun._replace(config=configs[seeds[0]]), {seed: runs[seed] for seed in seeds}
            with ExitStack() as inner:
                inner.enter_context(matmul_precision(group.config))
                loop, savers = _start(group, these, on_device, inner, progress)
                measure = _measure(group, inner)
                for saver in savers:
                    claim(saver, saver.config, command, progress, settings)
                joined = [
                    Member(lane, saver, measure(lane.config.seed), ADVICE) for lane, saver in zip(loop.runs, savers)
                ]
                drive(loop, joined, group.config, stop, progress)
            members += joined
    raise_diverged(members)
    return list(folders.values())


def _groups(runs: dict[int, RunFolder], configs: dict[int, RunConfig]) -> list[list[int]]:
    """Seeds that can advance together: they are in step, and differ in their seed alone."""
    groups = list[list[int]]()
    for seeds in in_step(runs):
        alike = defaultdict[RunConfig, list[int]](list)
        for seed in seeds:
            alike[replace(configs[seed], seed=0)].append(seed)
        groups += alike.values()
    return groups


def _start(
    begun: Begun, runs: dict[int, RunFolder], on_device: bool, stack: ExitStack, progress: Progress
) -> tuple[Loop, list[Saver]]:
    """The runs by seed, where they begin or go on, in one loop. Raises UserError where memory cannot hold them: at
    once, or while `stack` is open."""
    config, spec, source = begun.config, begun.spec, begun.source
    needed = needs(config, spec, agent_shapes(config, spec))
    if not on_device:
        check_host_memory(config, needed, jax.local_devices()[0])
    stack.enter_context(explained(needed))
    agents = {seed: create_agent(replace(config, seed=seed), spec) for seed in runs}
    announce(begun, next(iter(agents.values())), runs, progress)
    if not common_steps(list(runs.values())):  # Else they will be restored.
        agents = normalized(begun, agents, progress)
    loop = _on_device(begun, agents, needed, progress) if on_device else _on_host(begun, agents)
    savers, lanes = list[Saver](), cast(Sequence[Any], loop.runs)
    for run, lane in zip(runs.values(), lanes):
        record = NoRecord() if isinstance(source, Dataset) else Recorder(run, lane.config, lane)
        savers.append(Saver(run, lane.config, lane, record))
    restore(savers, progress)
    return loop, savers


def _on_host(begun: Begun, agents: dict[int, Any]) -> Loop:
    ((seed, agent),) = agents.items()
    config = replace(begun.config, seed=seed)
    if isinstance(begun.source, Dataset):
        return Offline(config, agent, begun.source)
    return Host(config, agent, begun.source)


def _on_device(begun: Begun, agents: dict[int, Any], needed: Needs, progress: Progress) -> Loop:
    """Raises UserError if the runs need more memory than there is."""
    config, source, devices = begun.config, begun.source, jax.devices()
    seeds: OfflineSeeds | Seeds
    seeds = (OfflineSeeds if isinstance(source, Dataset) else Seeds)(config, agents, source, devices)
    used = seeds.mesh.devices.ravel().tolist()
    if len(used) < len(devices):
        progress.note(
            f"{len(used)} of {len(devices)} devices are used: the most that share {len(agents)} seeds evenly."
        )
    if isinstance(seeds, OfflineSeeds):
        check_data_memory(config, needed, *seeds.sizes(), len(agents), used)
    else:
        check_memory(config, needed, seeds.fields, seeds.capacity, len(agents), used)
    return seeds


def matmul_precision(config: RunConfig) -> AbstractContextManager:
    """In it, networks multiply by the precision that the config asks for."""
    return jax.default_matmul_precision(PRECISIONS[config.precision])


def claim(
    saver: Saver, config: RunConfig, command: str | None, progress: Progress, settings: Mapping[str, Any] = NONE
) -> None:
    """Write what the run is into its folder: once it is restored, so that what fails to start leaves no trace."""
    run = saver.run
    step = saver.loop.step
    made = run.checkpoints.snapshots()
    if late := [asked for asked in config.snapshots if asked <= saver.saved_step and asked not in made]:
        progress.note(f"The run is at step {step:,}: snapshots at {late} come too late and are not made.")
    if saver.saved_step < 0:
        run.claim(to_json(config), versions(), command or "", from_step=None)
    elif step < config.steps:
        progress.say(f"Continuing {run.path} from step {step:,}.")
        if said := made_elsewhere(run.path, run.versions()):
            progress.note(said)
        run.claim(to_json(config), versions(), command or "", step, settings)
    elif settings:
        progress.note(f"{run.path} is at its last step, {step:,}: its settings stay as they are without more --steps.")


def _measure(begun: Begun, stack: ExitStack) -> Callable[[int], Measure | None]:
    """By seed what measures its run, in an environment that all of them share while `stack` is open."""
    if not (begun.config.eval_every and begun.config.env and begun.spec.position):
        return lambda seed: None
    env = stack.enter_context(closing(make_eval_env(begun.config, begun.spec)))
    return lambda seed: skill_metrics(replace(begun.config, seed=seed), env)


def skill_metrics(config: RunConfig, env: HostEnv) -> Callable[[Any, int], dict[str, float]]:
    """What is measured during training, on an environment of its own: the same skills from the same starts each time,
    so that a curve shows the agent and not the draw."""

    def measure(agent: Any, step: int) -> dict[str, float]:
        del step
        key, resets = stream(config.seed, "coverage"), env_seed(config.seed, "coverage")
        trajectory = coverage.skill_episodes(env, agent, key, resets)
        found = diagnostics.diagnose(agent, trajectory, env.env_spec)
        scores = {f"eval/{name}": value for name, value in found["scores"].items()} if found else {}
        return {"eval/coverage": float(count_cells(coverage.visited(trajectory)))} | scores

    return measure


def announce(begun: Begun, agent: Any, runs: dict[int, RunFolder], progress: Progress) -> None:
    """What runs are about to do and what each takes; and, also where it is quiet, what a user may not expect."""
    config, source = begun.config, begun.source
    places = ", ".join(str(run.path) for run in runs.values())
    what = f"seed{'s' * (len(runs) > 1)} {', '.join(map(str, runs))}, in {places}"
    if isinstance(source, Dataset):
        progress.say(
            f"Pretraining {config.agent_name} on {config.data} ({len(source):,} transitions of {config.env or 'no'} "
            f"environment), {config.steps:,} updates, {what}."
        )
    else:
        progress.say(f"Pretraining {config.agent_name} on {config.env}, {config.steps:,} steps, {what}.")
        _announce_env(config, begun.spec, agent_fields(agent, begun.spec), progress)


def _announce_env(config: PretrainConfig, spec: EnvSpec, fields: Fields, progress: Progress) -> None:
    """What runs in an environment take, and what a user may not expect of them; `fields` are what is kept of a step."""
    row = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in fields.values()) / 2**20
    rows = config.steps if config.keep_data == "all" else min(config.steps, 2 * config.replay_capacity)
    progress.say(
        f"Transitions: {row * min(config.steps, config.replay_capacity):,.0f} MiB in memory, "
        f"{row * rows:,.0f} MiB on disk (keep_data={config.keep_data})."
    )
    measured = coverage.EPISODES * (spec.episode_steps or 0)
    if not spec.position:
        progress.note(f"Environment '{config.env}' does not say where it is: coverage is not measured.")
    elif config.eval_every and config.eval_every < 2 * measured:
        progress.say(
            f"Each coverage evaluation takes {measured:,} steps of its own, every {config.eval_every:,} steps."
        )
    if not spec.exact_resume:
        progress.note(
            f"Environment '{config.env}' cannot save its state: a resumed run begins new episodes at its checkpoint."
        )
    if spec.ends_early and config.agent.batch.whole_episodes:
        progress.note(
            f"Episodes of '{config.env}' may end early, and {config.agent_name} learns from whole ones: what is then "
            f"missing is paid what its steps pay on average."
        )
    if config.learning_starts > config.steps:
        progress.note(f"min_replay is {config.min_replay:,}, more than the run's steps: nothing will be learned.")
