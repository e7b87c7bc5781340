"""`mjx:<domain>_<task>`: bodies of dm_control's suite on the device, with the model, observations, control step and
rewards of `dmc:<domain>_<task>`, and URLB's tasks of the same bodies (`mjx:walker_flip`, `mjx:quadruped_jump`, ...).

What differs from dm_control:

- An episode begins in one of `NUM_STARTS` starts that dm_control drew, not in a new one of its distribution: a
  quadruped is raised until it is free, a humanoid redrawn, a cheetah settled for 200 steps, and what begins
  episodes on the device runs in every step.
- Of a humanoid and a cheetah the `deepest` contacts of a kind are looked at; more were never seen at once. The
  quadruped's limbs do not collide with each other: within their limits they do not meet.

MuJoCo Playground (0.2.0) has walker, cheetah and humanoid too. It is not used: its options (no implicit damping, 2 to 4
solver iterations, 4 to 8 contacts) move qpos by 2e-3, 9e-3 and 4e-2 in a control step, in the median of 400 states of
random policies, where this is within 1e-6 (but for the humanoid, see docs/device.md); its walker shows the torso's
uprightness in the place of its height, and its humanoid always starts from one pose.
"""

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from urlrl.envs.mjx_physics import Physics, Sim, exact
from urlrl.envs.rewards import cheetah_reward, quadruped_reward, tolerance, walker_reward
from urlrl.errors import UserError
from urlrl.types import Array, DeviceEnv, DeviceState

NUM_STARTS = 512


class Glance:
    """A state as rewards look at it: `urlrl.tasks.kinematics.Pose` of one row, from MJX's data."""

    def __init__(self, data: Any):
        self.data = data

    def position(self, body: int) -> jax.Array:
        return self.data.xpos[body][None]

    def orientation(self, body: int) -> jax.Array:
        return self.data.xmat[body][None]

    def local_velocity(self, body: int) -> jax.Array:
        """Of a free root."""
        return (self.data.qvel[:3] @ self.data.xmat[body])[None]

    def com(self) -> jax.Array:
        return self.data.subtree_com[1][None]

    def com_velocity(self) -> jax.Array:
        return self.data._impl.subtree_linvel[1][None]

    def angular_momentum(self) -> jax.Array:
        return self.data._impl.subtree_angmom[1][None]


class Seen(NamedTuple):
    """What an observation is made of."""

    data: Any  # MJX's, of the state: places and velocities
    felt: Any  # (s,): the model's sensors of acceleration and force, in its order; of the last simulation step


def _walker_obs(body: "Body", seen: Seen) -> list[jax.Array]:
    data = seen.data
    return [data.xmat[1:, 0, (0, 2)].ravel(), data.xpos[body.torso, 2][None], data.qvel]


def _cheetah_obs(body: "Body", seen: Seen) -> list[jax.Array]:
    return [seen.data.qpos[1:], seen.data.qvel]


def _quadruped_obs(body: "Body", seen: Seen) -> list[jax.Array]:
    data, frame = seen.data, seen.data.xmat[body.torso]
    moves = [data.qpos[7:], data.qvel[6:], data.act, data.qvel[:3] @ frame, frame[2, 2][None]]
    return [*moves, seen.felt[:3], data.qvel[3:6], jnp.arcsinh(seen.felt[3:])]


def _humanoid_obs(body: "Body", seen: Seen) -> list[jax.Array]:
    data, frame = seen.data, seen.data.xmat[body.torso]
    limbs = [body.model.body(f"{side}_{limb}").id for side in ("left", "right") for limb in ("hand", "foot")]
    extremities = (data.xpos[np.array(limbs)] - data.xpos[body.torso]) @ frame
    head = data.xpos[body.model.body("head").id, 2][None]
    return [data.qpos[7:], head, extremities.ravel(), frame[2], data._impl.subtree_linvel[body.torso], data.qvel]


_HUMANOID = {"stand": 0.0, "walk": 1.0, "run": 10.0}  # m/s from which the reward is 1


def humanoid_reward(move: str, data: Any, model: mujoco.MjModel, action: jax.Array) -> Array:
    """(1,): upright with its head at 1.4 m, times how fast its centre of mass moves, times how little it acts."""
    standing = tolerance(data.xpos[model.body("head").id, 2][None], 1.4, np.inf, 0.35)
    upright = tolerance(data.xmat[model.body("torso").id, 2, 2][None], 0.9, np.inf, 1.9, 0, "linear")
    control = (4 + tolerance(action, 0, 0, 1, 0, "quadratic").mean()) / 5
    velocity, speed = data._impl.subtree_linvel[1, :2], _HUMANOID[move]
    if speed == 0:
        return control * standing * upright * tolerance(velocity, 0, 0, 2).mean()
    fast = tolerance(jnp.linalg.norm(velocity)[None], speed, np.inf, speed, 0, "linear")
    return control * standing * upright * (5 * fast + 1) / 6


class Domain(NamedTuple):
    """Of the suite."""

    tasks: tuple[str, ...]
    hosts: tuple[str, ...]  # those that are dm_control's; the first has the dynamics of the others
    observe: Callable[["Body", Seen], list[jax.Array]]
    reward: Callable[[str, "Body", Any, jax.Array], Array]  # task, body, MJX's data, action -> (1,)
    iterations: int  # of the solver: enough for 200 states of erratic policies
    deepest: int | None = None  # contacts that are kept, of each dimension; None: all
    meets_itself: bool = True
    feels: bool = False  # its observation has sensors of acceleration and force


DOMAINS = {
    "walker": Domain(
        ("walk", "stand", "run", "flip"), ("walk", "stand", "run"), _walker_obs,
        lambda task, body, data, action: walker_reward(task, Glance(data), body.torso), iterations=8,
    ),
    "cheetah": Domain(
        ("run", "run_backward", "walk", "walk_backward"), ("run",), _cheetah_obs,
        lambda task, body, data, action: cheetah_reward(task, Glance(data), body.torso), iterations=6,
        deepest=8,
    ),
    "quadruped": Domain(
        ("run", "walk", "stand", "jump"), ("run", "walk"), _quadruped_obs,
        lambda task, body, data, action: quadruped_reward(task, Glance(data), body.torso), iterations=8,
        meets_itself=False, feels=True,
    ),
    "humanoid": Domain(
        ("run", "walk", "stand"), ("run", "walk", "stand"), _humanoid_obs,
        lambda task, body, data, action: humanoid_reward(task, data, body.model, action), iterations=14,
        deepest=16,
    ),
}  # fmt: skip
TASKS = {f"mjx:{domain}_{task}": (domain, task) for domain, about in DOMAINS.items() for task in about.tasks}


def twin(name: str) -> str:
    """The environment of dm_control with the dynamics and the observations of a key of `TASKS`, and its reward, if
    that is one of dm_control's."""
    domain, task = TASKS[name]
    hosts = DOMAINS[domain].hosts
    return f"dmc:{domain}_{task if task in hosts else hosts[0]}"


@dataclass(frozen=True, eq=False)
class Body:
    """What the tasks of a domain share."""

    domain: Domain
    model: mujoco.MjModel
    physics: Physics
    substeps: int  # simulation steps per control step
    root: int  # where the coordinates that are the position begin in qpos
    torso: int

    def advance(self, sim: Sim, ctrl: jax.Array) -> tuple[Sim, Seen]:
        """One control step. As in dm_control, places and velocities are then those of the state that was reached,
        accelerations and forces those of the last simulation step."""
        with exact():
            shape = jax.eval_shape(self.physics.euler, sim, ctrl)[1]
            nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
            sim, last = jax.lax.fori_loop(
                0, self.substeps, lambda _, carry: self.physics.euler(carry[0], ctrl), (sim, nothing)
            )
            felt = self._feel(last) if self.domain.feels else None
            return sim, Seen(self.physics.look(sim), felt)

    def _feel(self, data: Any) -> jax.Array:
        sensors = self.physics.mjx.sensor_acc(self.physics.model, data).sensordata
        ids = np.flatnonzero(self.model.sensor_needstage == mujoco.mjtStage.mjSTAGE_ACC)
        places = zip(self.model.sensor_adr[ids], self.model.sensor_dim[ids])
        return jnp.concatenate([sensors[start : start + size] for start, size in places])


def device_env(name: str, episode_steps: int | None, root_position: bool) -> DeviceEnv:
    """The environment of a key of `TASKS`; it takes some seconds, in which starts are drawn.

    Raises:
        UserError: dm_control is missing.
    """
    if importlib.util.find_spec("dm_control") is None:
        raise UserError(f"Environment '{name}' needs the package dm_control, whose body it is: pip install dm_control.")
    from urlrl.envs.dmc import DmcEnv

    domain, task = TASKS[name]
    host = DmcEnv(twin(name).removeprefix("dmc:"), 1, episode_steps, root_position)
    spec, body = replace(host.env_spec, id=name, twin=host.env_spec.id), _body(domain)
    host.close()
    p = len(spec.position)
    low, high = jnp.asarray(spec.action_bounds).T

    def seen(sim: Sim, obs: jax.Array, reward: jax.Array) -> DeviceState:
        position = sim.qpos[body.root : body.root + p]
        obs = jnp.concatenate([position, obs]) if root_position else obs
        rows = jnp.concatenate([sim.qpos, sim.qvel, sim.act])
        return DeviceState(sim, obs, reward, jnp.zeros((), bool), position, rows)

    def reset(key: jax.Array) -> DeviceState:
        starts = _starts(domain)
        i = jax.random.randint(key, (), 0, NUM_STARTS)
        qpos, qvel, act, obs = (jnp.asarray(part)[i] for part in starts)
        return seen(Sim(qpos, qvel, act, jnp.zeros_like(qvel)), obs, jnp.zeros((), jnp.float32))

    def step(state: DeviceState, action: jax.Array) -> DeviceState:
        action = jnp.clip(action, -1, 1)
        sim, now = body.advance(state.sim, low + (high - low) * (action + 1) / 2)
        with exact():
            obs = jnp.concatenate(body.domain.observe(body, now))
            return seen(sim, obs, body.domain.reward(task, body, now.data, action)[0])

    def goal_obs(key: jax.Array, position: jax.Array) -> jax.Array:
        return reset(key).obs.at[:p].set(position)

    return DeviceEnv(spec, reset, step, goal_obs if root_position else None)


def _body(domain: str) -> Body:
    from urlrl.envs.dmc import silenced, suite

    about = DOMAINS[domain]
    with silenced("'settotalmass' is deprecated"):
        host = suite.load(domain, about.hosts[0])
    model: mujoco.MjModel = host.physics.model.ptr
    if about.deepest is not None:
        xml, assets = getattr(suite, domain).get_model_and_assets()
        spec = mujoco.MjSpec.from_string(xml, include=assets)
        spec.add_numeric(name="max_contact_points", size=1, data=[about.deepest])  # MJX reads it.
        with warnings.catch_warnings():  # Nothing that a user of the suite's models could act on.
            warnings.filterwarnings("ignore", message=".*'settotalmass' is deprecated")
            model = spec.compile()
    if not about.meets_itself:
        model.geom_conaffinity[model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE] = 0
    root = model.joint("rootx" if model.jnt_type[0] != mujoco.mjtJoint.mjJNT_FREE else "root")
    substeps = round(host.control_timestep() / host.physics.timestep())
    physics = Physics(f"mjx:{domain}_{about.tasks[0]}", model, about.iterations)
    return Body(about, model, physics, substeps, int(root.qposadr[0]), model.body("torso").id)


@cache
def _starts(domain: str) -> tuple[np.ndarray, ...]:
    """qpos, qvel, act and observation of `NUM_STARTS` starts, (n, ...) each, float32."""
    from urlrl.envs.dmc import DmcEnv

    env = DmcEnv(f"{domain}_{DOMAINS[domain].hosts[0]}", 1)
    env.reset(seed=0)
    rows = []
    for _ in range(NUM_STARTS):
        obs, _ = env.reset()
        rows.append(np.concatenate([env.physics()[0], obs[0]]))
    env.close()
    sizes = dict(env.env_spec.physics)
    ends = np.cumsum([sizes["qpos"], sizes["qvel"], sizes.get("act", 0)])
    return tuple(np.split(np.array(rows, np.float32), ends, axis=1))
