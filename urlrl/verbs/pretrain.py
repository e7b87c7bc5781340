"""Pretraining without reward."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.agents import find_agent
from urlrl.cells import count_cells
from urlrl.config import OfflineConfig, PretrainConfig, RunConfig, to_json
from urlrl.data.dataset import Dataset
from urlrl.data.replay import Fields, agent_fields
from urlrl.errors import UserError
from urlrl.evaluation import coverage
from urlrl.learners.nets import Normalizer
from urlrl.loading import check_names
from urlrl.runtime import changed_versions, enable_compilation_cache, versions
from urlrl.streams import env_seed, stream
from urlrl.training import normalizer
from urlrl.training.driver import drive
from urlrl.training.host import Host
from urlrl.training.log import Progress, make_progress
from urlrl.training.loop import Loop
from urlrl.training.memory import check_host_memory, explained, needs
from urlrl.training.offline import Offline
from urlrl.training.recorder import NoRecord, Record, Recorder
from urlrl.training.run import RunFolder
from urlrl.training.saver import Saver, restore
from urlrl.types import EnvSpec, HostEnv, need
from urlrl.verbs.runs import agent_shapes, create_agent, make_run_env, run_spec

PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32"}  # a config's word -> JAX's
FIT_LANES = 100  # environments that play at random while the normaliser is fitted


def pretrain(config: RunConfig, out: Path | str, *, quiet: bool = False, command: str | None = None) -> Path:
    """Pretrain without reward into the folder `out`; continues a run of the same config that is there.

    Args:
        config: see `urlrl.preset(agent, name)` and `dataclasses.replace`; an `OfflineConfig` learns from a dataset.
        quiet: show no progress.
        command: what the run's config.json gives as the way to repeat it.

    Returns:
        The folder.

    Raises:
        UserError: bad config, environment or data, or the folder holds another run.
        TrainingDiverged: non-finite numbers; the last checkpoint is whole.
        Interrupted: a signal stopped the run; it was saved and can be continued.
    """
    if isinstance(config, PretrainConfig) and config.loop == "device":
        from urlrl.verbs.pretrain_seeds import train_together

        return train_together(config, {config.seed: Path(out)}, quiet=quiet, command=command)[0]
    enable_compilation_cache()
    run = RunFolder(out)
    with ExitStack() as stack:
        stack.enter_context(products(config))
        stack.enter_context(run.lock())
        progress = make_progress(quiet)
        stack.callback(progress.close)
        loop: Loop
        record: Record
        if isinstance(config, OfflineConfig):
            dataset = Dataset(config.data).verify()
            config = with_data(config, dataset)
            run.check(config)
            stack.enter_context(fitting(config, run_spec(config)))
            loop, record = _offline(config, dataset, run, progress)
        else:
            run.check(config)
            env = stack.enter_context(closing(make_run_env(config, config.num_envs)))
            stack.enter_context(fitting(config, env.env_spec))
            loop, record = _online(config, env, run, progress)
        saver = Saver(run, config, loop, record)
        restore([saver], progress)
        claim(saver, config, command, progress)
        measure = None
        if config.eval_every and config.env and run_spec(config).position:
            measure = coverage_metric(config, stack.enter_context(closing(make_eval_env(config))))
        drive(loop, saver, config, measure, progress)
    return run.path


def products(config: RunConfig) -> AbstractContextManager:
    """In it, networks multiply by the precision that the config asks for."""
    return jax.default_matmul_precision(PRECISIONS[config.precision])


@contextmanager
def fitting(config: RunConfig, spec: EnvSpec) -> Iterator[None]:
    """In it, a run on the host is made and trained. Raises UserError where memory cannot hold it: at once, or when it
    runs out."""
    needed = needs(config, spec, agent_shapes(config, spec))
    check_host_memory(config, needed, jax.local_devices()[0])
    with explained(needed):
        yield


def make_eval_env(config: RunConfig) -> HostEnv:
    """What coverage is measured in during a run.

    Raises:
        UserError: its observations or actions are not those of the run's environment.
    """
    other = config.eval_env if isinstance(config, PretrainConfig) else None
    if other is None:
        return make_run_env(config, coverage.EPISODES)
    env, spec = make_run_env(replace(config, env=other), coverage.EPISODES), run_spec(config)
    found, expected = ((s.obs_dim, s.action_dim, s.position) for s in (env.env_spec, spec))
    if found != expected:
        raise UserError(
            f"eval_env '{other}' has (observations, actions, position) {found}: expected {expected}, as '{config.env}' "
            "has them."
        )
    return env


def claim(saver: Saver, config: RunConfig, command: str | None, progress: Progress) -> None:
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
        if changed := changed_versions(run.versions(), versions()):
            progress.note(
                f"{run.path} was made with other versions: {', '.join(changed)}. It need not end as one that was never "
                f"stopped."
            )
        run.claim(to_json(config), versions(), command or "", from_step=step)


def _online(config: PretrainConfig, env: HostEnv, run: RunFolder, progress: Progress) -> tuple[Host, Recorder]:
    """A run in an environment, where it begins."""
    check_online(config, env.env_spec)
    agent = create_agent(config, env.env_spec)
    what = f"seed {config.seed}, in {run.path}"
    announce(config, env.env_spec, agent_fields(agent, env.env_spec), what, progress)
    if not run.checkpoints.steps():
        agent = agent.replace(normalizer=make_normalizer(config, env.env_spec, progress))
    loop = Host(config, agent, env)
    return loop, Recorder(run, config, loop)


def with_data(config: OfflineConfig, dataset: Dataset) -> OfflineConfig:
    """The config with what the dataset says of itself.

    Raises:
        UserError: they do not fit, or the dataset names code that the user has not used.
    """
    need(find_agent(config.agent_name)[0], "offline")
    if not config.env:
        check_names({"env": dataset.info.env}, dataset.folder / "dataset.json")
    config = replace(config, data_id=dataset.id, env=config.env or dataset.info.env)
    spec, info = run_spec(config), dataset.info
    if (spec.obs_dim, spec.action_dim) != (info.obs_dim, info.action_dim):
        raise UserError(
            f"{config.data} has observations of {info.obs_dim} numbers and actions of {info.action_dim}: expected "
            f"{spec.obs_dim} and {spec.action_dim}, as environment '{config.env}' has them."
        )
    return config


def _offline(config: OfflineConfig, dataset: Dataset, run: RunFolder, progress: Progress) -> tuple[Offline, NoRecord]:
    """A run on a dataset, where it begins."""
    announce_data(config, dataset, f"seed {config.seed}, in {run.path}", progress)
    agent = create_agent(config, run_spec(config))
    if not run.checkpoints.steps():
        agent = agent.replace(normalizer=data_normalizer(config, dataset))
    return Offline(config, agent, dataset), NoRecord()


def announce_data(config: OfflineConfig, dataset: Dataset, what: str, progress: Progress) -> None:
    """What runs on a dataset are about to do. `what` names the seeds and folders."""
    progress.say(
        f"Pretraining {config.agent_name} on {config.data} ({len(dataset):,} transitions of {config.env or 'no'} "
        f"environment), {config.steps:,} updates, {what}."
    )


def data_normalizer(config: OfflineConfig, dataset: Dataset) -> Normalizer:
    """The frozen observation statistics that the config asks for."""
    if config.normalizer == "off":
        return Normalizer.identity(dataset.info.obs_dim)
    mean, std = dataset.moments()
    return Normalizer(mean=jnp.float32(mean), std=jnp.float32(std))


def make_normalizer(config: PretrainConfig, spec: EnvSpec, progress: Progress) -> Normalizer:
    """The frozen observation statistics that the config asks for."""
    if config.normalizer == "off":
        return Normalizer.identity(spec.obs_dim)
    if config.normalizer == "preset":
        return Normalizer(mean=jnp.float32(spec.obs_mean), std=jnp.float32(spec.obs_std))
    progress.say(f"Fitting the normaliser: {normalizer.ROLLOUTS:,} random-action rollouts of {normalizer.STEPS} steps.")
    with closing(make_run_env(config, FIT_LANES)) as env:
        mean, std = normalizer.fit_statistics(env, normalizer.ROLLOUTS, env_seed(config.seed, "fit"))
    return Normalizer(mean=jnp.float32(mean), std=jnp.float32(std))


def check_online(config: PretrainConfig, spec: EnvSpec) -> None:
    """Raises UserError if the normaliser cannot be had."""
    if config.normalizer == "preset" and (spec.obs_mean is None or spec.obs_std is None):
        raise UserError(
            f"Environment '{config.env}' has no published normalisation constants: "
            f"expected --normalizer fit or --normalizer off."
        )


def coverage_metric(config: RunConfig, env: HostEnv) -> Callable[[Any, int], dict[str, float]]:
    """What is measured during training, on an environment of its own."""
    key, resets = stream(config.seed, "coverage"), env_seed(config.seed, "coverage")

    def measure(agent: Any, step: int) -> dict[str, float]:
        trajectory = coverage.skill_episodes(env, agent, jax.random.fold_in(key, step), resets)
        return {"eval/coverage": float(count_cells(coverage.visited(trajectory)))}

    return measure


def announce(config: PretrainConfig, spec: EnvSpec, fields: Fields, what: str, progress: Progress) -> None:
    """What runs are about to do and what each takes; and, also where it is quiet, what a user may not expect of them.
    `fields` are what is kept of a step, `what` names the seeds and folders."""
    row = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in fields.values()) / 2**20
    rows = config.steps if config.keep_data == "all" else min(config.steps, 2 * config.replay_capacity)
    progress.say(
        f"Pretraining {config.agent_name} on {config.env}, {config.steps:,} steps, {what}.\n"
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
    if config.learning_starts > config.steps:
        progress.note(f"min_replay is {config.min_replay:,}, more than the run's steps: nothing will be learned.")
