"""Loop (c): environment, replay and agent in one compiled, donated call per epoch, for many seeds at once.

An epoch is the host loop's: `rollout_steps` steps in each environment, then `updates` gradient steps, by the same keys.
It is a pure function of a seed's `RunState`, mapped over the seeds of a device and over the devices that share them.

Devices may also share out one seed's environments, its replay's parts and the batches that are drawn from them: XLA
partitions the program by where these lie, and adds up gradients. What is computed does not depend on it.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from urlrl.acting import begun, nothing_yet, planned
from urlrl.config import PretrainConfig
from urlrl.data.device_replay import DeviceReplay
from urlrl.errors import UserError
from urlrl.training.learn import as_batch, learn
from urlrl.training.rollouts import first_clock
from urlrl.training.stacked import over_axes
from urlrl.types import DeviceEnv, DeviceState, Transition


class Lanes(NamedTuple):
    """A seed's environments, n side by side, and what its agent remembers in each."""

    carry: Any  # Agent.begin's, (n, ...)
    env: DeviceState  # (n, ...)
    clock: jax.Array  # (n,), int32: control steps since the reset
    episode: jax.Array  # (n,), int32: number of the episode that each is in
    ended: jax.Array  # (n,), bool: to be reset before the next step


class Keys(NamedTuple):
    """Of a seed; they never change."""

    epochs: jax.Array
    resets: jax.Array


class RunState(NamedTuple):
    """All of one seed's run."""

    agent: Any
    lanes: Any  # Lanes
    epochs: Any  # (), int32: how many are done
    keys: Any  # Keys
    replay: Any  # DeviceReplay


class Made(NamedTuple):
    """What an epoch hands to the host."""

    position: jax.Array  # (rows, p): what was reached, steps in order, environments interleaved
    metrics: dict[str, jax.Array]  # means over the updates; none where nothing was learned
    finite: jax.Array  # (): no parameter of the agent is NaN or infinite
    broken: "Broken"


# What is looked at in an epoch's rows, in the order in which it comes about, and the words for it.
FLOWS = {"obs": "observation", "action": "action", "next_obs": "observation", "reward": "reward"}


class Broken(NamedTuple):
    """The first number of an epoch's rows that is not finite; all () arrays."""

    any: jax.Array  # bool: there is one
    flow: jax.Array  # int32: place in FLOWS
    lane: jax.Array  # int32
    step: jax.Array  # int32: of its episode


@partial(jax.jit, static_argnums=(0, 2))
def first_lanes(env: DeviceEnv, agent: Any, n: int, seen: Transition, keys: Keys) -> Lanes:
    """Before the first epoch, which begins an episode in each of `n` environments; it is number 1, as on the host."""
    zeros = jnp.zeros(n, jnp.int32)
    states = jax.vmap(env.reset)(_reset_keys(keys.resets, zeros))
    return Lanes(nothing_yet(agent, n, planned(agent, seen)), states, zeros, zeros, jnp.ones(n, bool))


def advance(env: DeviceEnv, config: PretrainConfig, learning: bool, state: RunState) -> tuple[RunState, Made]:
    """One epoch: collect, and learn where `learning`."""
    agent, epochs, replay = state.agent, state.epochs, state.replay
    keys = jax.random.split(jax.random.fold_in(state.keys.epochs, epochs), 5)
    act_key, begin_key, seen_key, sample_key, update_key = keys
    seen = jax.tree.map(lambda x: x[0], replay.sample(seen_key, 1, agent.config.batch))
    plan = agent.plan(seen, jax.random.fold_in(seen_key, 1))
    first = jnp.asarray(first_clock(config, env.env_spec), jnp.int32)

    def step(lanes: Lanes, t: jax.Array) -> tuple[Lanes, Step]:
        lanes = _begin_episodes(env, agent, lanes, first, state.keys.resets, jax.random.fold_in(begin_key, t), plan)
        return _step(env, agent, lanes, jax.random.fold_in(act_key, t))

    lanes, made = jax.lax.scan(step, state.lanes, jnp.arange(config.rollout_steps, dtype=jnp.int32))
    rows = {name: made.row[name] for name in replay.data}
    replay = replay.add(rows)
    metrics, finite = {}, jnp.ones((), bool)
    if learning:
        if config.learns_from_rollouts:
            batches = as_batch(rows, made.given, agent.config.batch)
        else:
            batches = replay.sample(sample_key, config.updates, agent.config.batch)
        agent, metrics, finite = learn(agent, batches, update_key)
    position = made.position.reshape(config.epoch_steps, made.position.shape[-1])
    state = RunState(agent, lanes, epochs + 1, state.keys, replay)
    return state, Made(position, metrics, finite, _broken(rows, made.clock))


def _begin_episodes(
    env: DeviceEnv,
    agent: Any,
    lanes: Lanes,
    first: jax.Array,
    reset_key: jax.Array,
    begin_key: jax.Array,
    plan: Any,
) -> Lanes:
    """Fresh episodes, skills and clocks where the last one has ended; the clocks of the first ones are at `first`."""
    ended, episode = lanes.ended, lanes.episode + lanes.ended
    states = jax.vmap(env.reset)(_reset_keys(reset_key, episode))
    carry = begun(ended, agent.begin(begin_key, ended.shape[0], plan), lanes.carry)
    states, clock = jax.tree.map(
        lambda new, old: jnp.where(ended.reshape(-1, *[1] * (old.ndim - 1)), new, old),
        (states, jnp.where(episode == 1, first, 0)),
        (lanes.env, lanes.clock),
    )
    return Lanes(carry, states, clock, episode, jnp.zeros_like(ended))


class Step(NamedTuple):
    """What one step of all lanes leaves, (n, ...)."""

    row: dict[str, jax.Array]  # by field
    given: Any  # `Carry.given`
    position: jax.Array  # that was reached
    clock: jax.Array  # of its episode, after it


def _step(env: DeviceEnv, agent: Any, lanes: Lanes, key: jax.Array) -> tuple[Lanes, Step]:
    """Act and step."""
    before, limit = lanes.env, env.env_spec.episode_steps
    action, carry = agent.act(before.obs, lanes.carry, key)
    after, clock = jax.vmap(env.step)(before, action), lanes.clock + 1
    truncated = ~after.terminated & (jnp.zeros_like(lanes.ended) if limit is None else clock >= limit)
    row = {
        "obs": before.obs, "action": action, "reward": after.reward, "terminated": after.terminated,
        "truncated": truncated, "next_obs": after.obs, "physics": before.physics, "next_physics": after.physics,
        **carry.stored,
    }  # fmt: skip
    lanes = Lanes(carry, after, clock, lanes.episode, after.terminated | truncated)
    return lanes, Step(row, carry.given, after.position, clock)


def _broken(rows: dict[str, jax.Array], clock: jax.Array) -> Broken:
    """Of an epoch's rows, (steps, n, ...)."""
    steps, lanes = clock.shape
    bad = jnp.stack([~jnp.isfinite(rows[name]).reshape(steps, lanes, -1).all(-1) for name in FLOWS], axis=-1)
    first = jnp.argmax(bad).astype(jnp.int32)
    row, flow = first // len(FLOWS), first % len(FLOWS)
    return Broken(bad.any(), flow, row % lanes, clock.reshape(-1)[row] - (flow == 0))


def _reset_keys(key: jax.Array, episode: jax.Array) -> jax.Array:
    """(n,) keys that depend on the lane and the number of its episode alone, as those of the host's resets."""
    lanes = jnp.arange(episode.shape[0], dtype=jnp.int32)
    return jax.vmap(lambda lane, number: jax.random.fold_in(jax.random.fold_in(key, lane), number))(lanes, episode)


def over_seeds(env: DeviceEnv, config: PretrainConfig, learning: bool, mesh: Mesh, axes: Any) -> Any:
    """`advance`, compiled: states stacked over seeds, laid out over the devices of `mesh` as `shardings` has them. The
    states it is given are used up.

    Args:
        axes: `seed_axes` of the agent.
    """
    stacked = RunState(axes, 0, 0, 0, 0)
    each = jax.vmap(partial(advance, env, config, learning), in_axes=(stacked,), out_axes=(stacked, 0))
    seeds = PartitionSpec("seed")  # Nothing is exchanged between these; the rest of the mesh is XLA's.
    specs = RunState(over_axes(lambda axis: PartitionSpec() if axis is None else seeds, axes), *[seeds] * 4)
    split = jax.shard_map(
        each, mesh=mesh, in_specs=(specs,), out_specs=(specs, seeds), axis_names={"seed"}, check_vma=False
    )
    if mesh.size == mesh.shape["seed"]:
        return jax.jit(split, donate_argnums=0)
    layout = shardings(mesh, config, axes)
    return jax.jit(split, donate_argnums=0, in_shardings=(layout,), out_shardings=(layout, None))


def shardings(mesh: Mesh, config: PretrainConfig, axes: Any) -> Any:
    """Where a `RunState` stacked over seeds lies, as a prefix of it; `axes` are the agent's, see `seed_axes`."""
    whole = NamedSharding(mesh, PartitionSpec())
    seed, both = NamedSharding(mesh, PartitionSpec("seed")), NamedSharding(mesh, PartitionSpec(*mesh.axis_names))
    agents = over_axes(lambda axis: whole if axis is None else seed, axes)
    replay = DeviceReplay(data=both, next=seed, filled=seed, width=config.num_envs // config.replay_parts)
    return RunState(agent=agents, lanes=both, epochs=seed, keys=seed, replay=replay)


def seed_mesh(num_seeds: int, devices: Sequence[jax.Device]) -> Mesh:
    """As many of the devices as divide the number of seeds."""
    used = max(n for n in range(1, len(devices) + 1) if num_seeds % n == 0)
    return Mesh(np.array(devices[:used]), ("seed",))


def device_mesh(num_seeds: int, config: PretrainConfig, devices: Sequence[jax.Device]) -> Mesh:
    """Devices by seed, as many as divide the number of seeds; and, where the replay has parts, by environment.

    Raises:
        UserError: the devices that are left for a seed's environments do not divide its parts.
    """
    if config.replay_parts == 1:
        return seed_mesh(num_seeds, devices)
    seeds = math.gcd(num_seeds, len(devices))
    lanes = len(devices) // seeds
    if config.replay_parts % lanes:
        raise UserError(
            f"{len(devices)} devices are {lanes} for each of {seeds} seeds at a time, and replay_parts is "
            f"{config.replay_parts}: expected a multiple of {lanes}, and a batch that it divides."
        )
    return Mesh(np.array(devices).reshape(seeds, lanes), ("seed", "lane"))
