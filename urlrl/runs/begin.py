"""What runs begin with, made once: the environment or the dataset that they learn from, and their agents."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from urlrl.agents import find_agent
from urlrl.config import OfflineConfig, PretrainConfig, RunConfig
from urlrl.data.dataset import IN_BOUNDS, Dataset
from urlrl.data.rows import example_transition
from urlrl.data.validate import check_actions
from urlrl.envs import make_device_env, make_env
from urlrl.errors import UserError
from urlrl.evaluation import coverage
from urlrl.learners.statistics import Normalizer
from urlrl.loading import check_names
from urlrl.streams import env_seed, stream
from urlrl.training import normalizer
from urlrl.training.log import Progress
from urlrl.training.memory import check_agent_memory
from urlrl.types import DeviceEnv, EnvSpec, HostEnv, Transition, need

FIT_LANES = 100  # environments that play at random while the normaliser is fitted


class Begun(NamedTuple):
    """What runs of one config share, which differ in their seed."""

    config: Any  # RunConfig, with what a dataset says of itself
    spec: EnvSpec
    source: Any  # what they learn from: a HostEnv, a DeviceEnv or a Dataset


@contextmanager
def begin(config: RunConfig, on_device: bool) -> Iterator[Begun]:
    """Make what runs of this config learn from; it is closed at the end.

    Raises:
        UserError: bad environment or data, or they do not fit what the config asks for.
    """
    if isinstance(config, OfflineConfig):
        dataset = Dataset(config.data).verify()
        if not (bounds := check_actions(dataset)).ok:
            raise UserError(f"{dataset.folder}: {bounds.detail}: {IN_BOUNDS}.")
        yield Begun(*with_data(config, dataset), dataset)
    elif on_device:
        env = _device_env(config)
        _check_agent(config, env.env_spec)
        _check_normalizer(config, env.env_spec)
        yield Begun(config, env.env_spec, env)
    else:
        with closing(make_run_env(config, config.num_envs)) as envs:
            _check_agent(config, envs.env_spec)
            _check_normalizer(config, envs.env_spec)
            yield Begun(config, envs.env_spec, envs)


def create_agent(config: RunConfig, spec: EnvSpec) -> Any:
    """An untrained agent of this config, from the config's seed. Raises UserError where memory cannot hold it."""
    _check_agent(config, spec)
    check_agent_memory(config, agent_shapes(config, spec), jax.local_devices()[0])
    return _create(*_arguments(config, spec))


def agent_shapes(config: RunConfig, spec: EnvSpec) -> Any:
    """The shapes of `create_agent`'s arrays, none of which is made."""
    return _create.eval_shape(*_arguments(config, spec))


def _arguments(config: RunConfig, spec: EnvSpec) -> tuple[Any, ...]:
    example = example_transition(spec, config.agent.z.dim)
    return find_agent(config.agent_name)[0], config.agent, example, stream(config.seed, "agent")


@partial(jax.jit, static_argnums=(0, 1))
def _create(agent_class: Any, config: Any, example: Transition, key: jax.Array) -> Any:
    return agent_class.create(config, example, key)


def normalized(begun: Begun, agents: dict[int, Any], progress: Progress) -> dict[int, Any]:
    """New agents, by seed, with the frozen observation statistics that the config asks for."""
    config, source = begun.config, begun.source
    if isinstance(source, Dataset):
        of_data = data_normalizer(config, source)  # One pass over the data for all seeds.
        return {seed: agent.replace(normalizer=of_data) for seed, agent in agents.items()}
    return {
        seed: agent.replace(normalizer=make_normalizer(replace(config, seed=seed), begun.spec, progress))
        for seed, agent in agents.items()
    }


def data_normalizer(config: OfflineConfig, dataset: Dataset) -> Normalizer:
    """The statistics of a dataset."""
    if config.normalizer == "off":
        return Normalizer.identity(dataset.info.obs_dim)
    mean, std = dataset.moments()
    return Normalizer(mean=jnp.float32(mean), std=jnp.float32(std))


def make_normalizer(config: PretrainConfig, spec: EnvSpec, progress: Progress) -> Normalizer:
    """The statistics of an environment: published, or of random play."""
    if config.normalizer == "off":
        return Normalizer.identity(spec.obs_dim)
    if config.normalizer == "preset":
        return Normalizer(mean=jnp.float32(spec.obs_mean), std=jnp.float32(spec.obs_std))
    rollouts = normalizer.rollouts_for(config.steps)
    progress.say(f"Fitting the normaliser: {rollouts:,} random-action rollouts of {normalizer.STEPS} steps.")
    with closing(make_run_env(config, min(FIT_LANES, rollouts))) as env:
        mean, std = normalizer.fit_statistics(env, rollouts, env_seed(config.seed, "fit"), progress)
    return Normalizer(mean=jnp.float32(mean), std=jnp.float32(std))


def _check_agent(config: RunConfig, spec: EnvSpec) -> None:
    """Raises UserError if the agent cannot act as the environment asks for, or cannot learn in it."""
    agent: Any = find_agent(config.agent_name)[0]
    if spec.action == "onehot":
        need(agent, "discrete")
    if "selective" in agent.abilities:
        agent.check_env(config.agent, spec)


def _check_normalizer(config: PretrainConfig, spec: EnvSpec) -> None:
    """Raises UserError if the normaliser cannot be had."""
    if config.normalizer == "preset" and (spec.obs_mean is None or spec.obs_std is None):
        raise UserError(
            f"Environment '{config.env}' has no published normalisation constants: "
            f"expected --normalizer fit or --normalizer off."
        )


def with_data(config: OfflineConfig, dataset: Dataset) -> tuple[OfflineConfig, EnvSpec]:
    """The config with what the dataset says of itself, and `run_spec` of it.

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
    return config, spec


def run_spec(config: RunConfig) -> EnvSpec:
    """What a run's environment says of itself; of a dataset that names none, what the data says."""
    if isinstance(config, OfflineConfig) and not config.env:
        info = Dataset(config.data).info
        return EnvSpec("", info.obs_dim, info.action_dim, None, None, obs_is_physics=info.obs_is_physics)
    with closing(make_run_env(config, 1)) as env:
        return env.env_spec


def make_run_env(config: RunConfig, num_envs: int) -> HostEnv:
    """Copies of the environment that a run of this config trains in, or that its dataset names."""
    if not config.env:
        raise UserError(
            "The run's dataset names no environment: expected --env NAME when it is pretrained or converted."
        )
    return make_env(
        config.env,
        num_envs,
        episode_steps=config.episode_steps,
        root_position=config.root_position,
        on_nonfinite=config.on_nonfinite,
    )


def _device_env(config: PretrainConfig) -> DeviceEnv:
    if config.on_nonfinite != "stop":
        make_run_env(config, 1).close()  # This refuses the option: only environments of the host have it.
    try:
        return make_device_env(config.env, episode_steps=config.episode_steps, root_position=config.root_position)
    except UserError:
        make_run_env(config, 1).close()  # Of a name that there is not, this tells the nearest.
        raise


def make_eval_env(config: RunConfig, spec: EnvSpec) -> HostEnv:
    """What coverage is measured in during a run in an environment of this `spec`.

    Raises:
        UserError: its observations or actions are not those of the run's environment.
    """
    other = config.eval_env if isinstance(config, PretrainConfig) else None
    env = make_run_env(replace(config, env=other or config.env), coverage.EPISODES)
    found, expected = ((s.obs_dim, s.action_dim, s.position) for s in (env.env_spec, spec))
    if found != expected:
        raise UserError(
            f"eval_env '{other}' has (observations, actions, position) {found}: expected {expected}, as '{config.env}' "
            "has them."
        )
    return env
