"""`dmc:<domain>_<task>`: dm_control's suite, observations and rewards equal to its own bit for bit, many lanes at once.

Every lane has its own dm_control physics, stepped in native threads; the task object is shared, since the suite's tasks
keep nothing between steps. Observations of the locomotion tasks are computed for all lanes together (`Stacked`); every
other task is asked lane by lane. Actions in [-1, 1] are mapped onto the task's bounds.
"""

import math
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import mujoco
import numpy as np

from urlrl.envs.base import LaneByLaneEnv
from urlrl.envs.pool import STATE, Threads, saved_states, set_state, silenced
from urlrl.errors import UserError, unknown
from urlrl.types import EnvSpec

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*DISPLAY")  # glfw's, on a machine without a screen; nothing is drawn.
    from dm_control import suite
    from dm_control.suite import cheetah, humanoid, quadruped, walker

TASKS = {f"dmc:{domain}_{task}": (domain, task) for domain, task in suite.ALL_TASKS}

# Domain -> coordinates, and half-width of the goal box in m. Quadruped and humanoid as in METRA's goal experiments;
# walker and cheetah as far as an episode leads, 25 s at a walk of 1 m/s and 10 s at 5 m/s, half the running speed.
_POSITIONS = {
    "walker": (("x",), (25.0,)),
    "cheetah": (("x",), (50.0,)),
    "quadruped": (("x", "y"), (15.0, 15.0)),
    "humanoid": (("x", "y"), (10.0, 10.0)),
}


class DmcEnv(LaneByLaneEnv):
    """`num_envs` copies of a task of the suite; reward, termination and time limit are the task's own.

    The position is that of the geom "torso", which sits at the origin of the root body: in the planar walker and
    cheetah its x is the root joint's coordinate. `root_position=True` puts these in front of the observation.
    """

    def __init__(
        self,
        name: str,
        num_envs: int,
        episode_steps: int | None = None,
        root_position: bool = False,
        threads: int | None = None,
    ):
        name = f"dmc:{name}"
        if name not in TASKS:
            raise unknown("environment", name, TASKS)
        with silenced("'settotalmass' is deprecated"):  # Nothing that a user of the suite's models could act on.
            env = suite.load(*TASKS[name], task_kwargs={"random": 0})
        names, goal_box = _POSITIONS.get(TASKS[name][0], ((), ()))
        if root_position and not names:
            raise UserError(
                f"Environment '{name}' has no option root_position: expected a task of {', '.join(_POSITIONS)}."
            )
        self.task = env.task
        self.model = env.physics.model.ptr
        self._substeps = round(env.control_timestep() / env.physics.timestep())
        bounds = env.action_spec().minimum, env.action_spec().maximum
        self._to_bounds = _affine(name, env.action_spec())
        self._spare = _Lane(env.physics, len(names), root_position)  # where goals' observations are computed
        self._lanes = [_Lane(env.physics.copy(), len(names), root_position) for _ in range(num_envs)]
        limit = None if math.isinf(env._step_limit) else math.ceil(env._step_limit)
        sizes = (("qpos", self.model.nq), ("qvel", self.model.nv), ("act", self.model.na))
        try:
            self._start(self._spare, (0, 0, 0))
        except (mujoco.FatalError, RuntimeError) as error:  # Rough terrain is handed to a renderer.
            raise UserError(
                f"Environment '{name}' cannot start an episode ({error}): expected OpenGL, as with MUJOCO_GL=egl."
            ) from error
        spec = EnvSpec(
            id=name,
            obs_dim=self._observe(self._spare).size,
            action_dim=self.model.nu,
            episode_steps=limit if episode_steps is None else episode_steps,
            control_dt=env.control_timestep(),
            action_bounds=tuple(zip(*(np.broadcast_to(b, self.model.nu).tolist() for b in bounds))),
            position=names,
            goal_box=goal_box if root_position else (),
            physics=tuple((part, size) for part, size in sizes if size),
            exact_resume=True,
        )
        super().__init__(spec, num_envs)
        self._rows = np.zeros((num_envs, spec.obs_dim))
        self._pool = Threads(num_envs, threads)
        stacked = _STACKED.get(type(self.task))
        self._stacked = stacked(self.model, [lane.data for lane in self._lanes]) if stacked else None

    def position(self) -> np.ndarray:
        return np.stack([lane.torso for lane in self._lanes])

    def physics(self) -> np.ndarray:
        return np.stack([np.concatenate([lane.data.qpos, lane.data.qvel, lane.data.act]) for lane in self._lanes])

    def goal_obs(self, position: np.ndarray) -> np.ndarray:
        """The observation of a fresh reset moved to each of `position` (k, p): (k, obs).

        Raises:
            UserError: the observation does not hold the position.
        """
        if not self.env_spec.goal_box:
            raise UserError(
                f"Environment '{self.env_spec.id}' has no goal positions: expected root_position=True, and a task "
                f"of {', '.join(_POSITIONS)}."
            )
        obs = np.empty((len(position), self.env_spec.obs_dim))
        for i, goal in enumerate(position):
            self._start(self._spare, (self.seed, -1 - i, 0))
            self._spare.root[:] = goal
            self._spare.physics.after_reset()
            obs[i] = self._observe(self._spare)
        return obs

    def place(self, physics: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, float]:
        spare = self._spare
        set_state(spare.model, spare.data, physics, self._to_bounds(action))
        return self._observe(spare), self.task.get_reward(spare.physics)

    def close(self, **kwargs) -> None:
        self._pool.close()

    def _start(self, lane: "_Lane", seed: tuple[int, int, int]) -> None:
        """`dm_control.rl.control.Environment.reset`, from a seed."""
        self.task.random.seed([part & 0xFFFFFFFF for part in seed])
        with lane.physics.reset_context():
            self.task.initialize_episode(lane.physics)

    def _observe(self, lane: "_Lane") -> np.ndarray:
        return np.concatenate([lane.root, *map(np.ravel, self.task.get_observation(lane.physics).values())])

    def _reset_lane(self, lane: int, seed: tuple[int, int, int]) -> None:
        self._start(self._lanes[lane], seed)
        self._rows[lane] = self._observe(self._lanes[lane])

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        controls, stacked, task = self._to_bounds(actions), self._stacked, self.task
        reward, discount = np.empty(self.num_envs), np.ones(self.num_envs)

        def work(share: range) -> None:
            for i in share:
                lane = self._lanes[i]
                task.before_step(controls[i], lane.physics)
                self._advance(i)
                ending = task.get_termination(lane.physics)
                discount[i] = 1.0 if ending is None else ending
                if stacked:
                    stacked.copy(i)
                    self._rows[i, : lane.root.size] = lane.root
                else:
                    self._rows[i] = self._observe(lane)
                if not (stacked and stacked.rewards):
                    reward[i] = task.get_reward(lane.physics)

        self._pool.run(work)
        if stacked:
            obs = task.get_observation(stacked).values()
            self._rows[:, self._spare.root.size :] = np.concatenate([np.reshape(o, (-1, self.num_envs)) for o in obs]).T
            if stacked.rewards:
                reward = task.get_reward(stacked)
        limit = self.env_spec.episode_steps
        in_time = self.clock + 1 < limit if limit else True  # At the time limit dm_control does not ask for more.
        return reward, (discount == 0) & in_time

    def _advance(self, i: int) -> None:
        """`dm_control.mujoco.Physics.step`: what depends on position and velocity is that of the state reached, what
        depends on acceleration (accelerometers, forces) that of the last simulation step."""
        lane = self._lanes[i]
        if self.model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4:
            mujoco.mj_step(lane.model, lane.data, self._substeps)
        else:
            mujoco.mj_step2(lane.model, lane.data)
            if self._substeps > 1:
                mujoco.mj_step(lane.model, lane.data, self._substeps - 1)
        mujoco.mj_step1(lane.model, lane.data)
        if lane.warnings.any():
            found = [name for name, count in zip(mujoco.mjtWarning.__members__, lane.warnings) if count]
            raise UserError(
                f"The simulation of '{self.env_spec.id}' is invalid ({', '.join(found)}; lane {i}, step "
                f"{self.clock[i] + 1} of its episode): expected one that stays finite."
            )

    def _obs(self) -> np.ndarray:
        return self._rows.copy()

    def _get_state(self) -> dict[str, np.ndarray]:
        state = saved_states([(lane.model, lane.data) for lane in self._lanes])
        return {"simulation": state, "observation": self._obs()}

    def _set_state(self, state: dict[str, np.ndarray]) -> None:
        """Observations are saved too, as accelerations are no function of the simulation's state. Some tasks place
        their targets in the model: the reset is replayed for these."""
        for i, (lane, row) in enumerate(zip(self._lanes, state["simulation"])):
            self._start(lane, (self.seed, i, int(self.episode[i])))
            mujoco.mj_setState(lane.model, lane.data, row, STATE)
            mujoco.mj_step1(lane.model, lane.data)  # The first half of the next step, which ends with mj_step2.
        self._rows[:] = state["observation"]


class _Lane:
    """One simulation, and views into it; looking an attribute up through the bindings costs more than copying it."""

    def __init__(self, physics: Any, position_dim: int, root_position: bool):
        self.physics = physics
        self.model: mujoco.MjModel = physics.model.ptr
        self.data: mujoco.MjData = physics.data.ptr
        self.warnings = self.data.warning.number
        self.torso = self.data.geom("torso").xpos[:position_dim] if position_dim else np.zeros(0)
        self.root = np.zeros(0)  # the coordinates that stand in front of the observation
        if root_position:
            start = int(self.model.joint("rootx" if position_dim == 1 else "root").qposadr[0])
            self.root = self.data.qpos[start : start + position_dim]


def _affine(name: str, spec: Any):
    """The map of actions in [-1, 1] onto a task's bounds."""
    low, high = (np.asarray(bound, np.float64) for bound in (spec.minimum, spec.maximum))
    if len(spec.shape) != 1 or np.abs([low, high]).max() >= mujoco.mjMAXVAL:
        raise UserError(
            f"Environment '{name}' has actions of shape {spec.shape} in [{low.min()}, {high.max()}]: expected a flat "
            "array with finite bounds."
        )
    middle, half = (high + low) / 2, (high - low) / 2
    return lambda actions: middle + half * actions


class Stacked:
    """The physics of all lanes, as far as a task asks for it: each array's *last* axis is the lane, so that the task's
    own functions index features as they do for one lane. Elementwise operations only, whose results do not depend on
    the number of lanes; subclasses have the methods of the domain's `Physics`.
    """

    fields: ClassVar[tuple[str, ...]]  # of MjData
    rewards: ClassVar[bool] = False  # the task's reward is made of elementwise operations too

    def __init__(self, model: mujoco.MjModel, datas: list[mujoco.MjData]):
        rows = {field: np.empty((len(datas), *getattr(datas[0], field).shape)) for field in self.fields}
        self.model = model
        self.data = SimpleNamespace(**{field: np.moveaxis(array, 0, -1) for field, array in rows.items()})
        self.torso = model.body("torso").id
        self._copies = [[(rows[field][i], getattr(data, field)) for field in rows] for i, data in enumerate(datas)]

    def copy(self, lane: int) -> None:
        for row, source in self._copies[lane]:
            row[...] = source

    def sensors(self, *types: mujoco.mjtSensor) -> np.ndarray:
        """Where the readings of these types of sensors are, in the model's order."""
        ids = np.flatnonzero(np.isin(self.model.sensor_type, types))
        starts, sizes = self.model.sensor_adr[ids], self.model.sensor_dim[ids]
        return np.concatenate([np.arange(start, start + size) for start, size in zip(starts, sizes)])

    def velocity(self) -> np.ndarray:
        return self.data.qvel

    def torso_upright(self) -> np.ndarray:
        return self.data.xmat[self.torso, 8]


class _Walker(Stacked):
    fields = ("qvel", "xpos", "xmat")

    def orientations(self) -> np.ndarray:
        return self.data.xmat[1:, [0, 2]]

    def torso_height(self) -> np.ndarray:
        return self.data.xpos[self.torso, 2]


class _Cheetah(Stacked):
    fields = ("qpos", "qvel", "sensordata")
    rewards = True

    def speed(self) -> np.ndarray:
        return self.data.sensordata[self.model.sensor("torso_subtreelinvel").adr[0]]


class _Quadruped(Stacked):
    fields = ("qpos", "qvel", "act", "xmat", "sensordata")
    rewards = True

    def __init__(self, model: mujoco.MjModel, datas: list[mujoco.MjData]):
        super().__init__(model, datas)
        hinge = model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE
        self.hinge_qpos, self.hinge_qvel = model.jnt_qposadr[hinge], model.jnt_dofadr[hinge]
        self.velocimeter = self.sensors(mujoco.mjtSensor.mjSENS_VELOCIMETER)
        self.inertial = self.sensors(mujoco.mjtSensor.mjSENS_GYRO, mujoco.mjtSensor.mjSENS_ACCELEROMETER)
        self.toes = self.sensors(mujoco.mjtSensor.mjSENS_FORCE, mujoco.mjtSensor.mjSENS_TORQUE)

    def egocentric_state(self) -> np.ndarray:
        return np.concatenate([self.data.qpos[self.hinge_qpos], self.data.qvel[self.hinge_qvel], self.data.act])

    def torso_velocity(self) -> np.ndarray:
        return self.data.sensordata[self.velocimeter]

    def imu(self) -> np.ndarray:
        return self.data.sensordata[self.inertial]

    def force_torque(self) -> np.ndarray:
        return np.arcsinh(self.data.sensordata[self.toes])


class _Humanoid(Stacked):
    fields = ("qpos", "qvel", "xpos", "xmat", "sensordata")

    def __init__(self, model: mujoco.MjModel, datas: list[mujoco.MjData]):
        super().__init__(model, datas)
        self.limbs = [model.body(f"{side}_{limb}").id for side in ("left", "right") for limb in ("hand", "foot")]

    def position(self) -> np.ndarray:
        return self.data.qpos

    def joint_angles(self) -> np.ndarray:
        return self.data.qpos[7:]

    def head_height(self) -> np.ndarray:
        return self.data.xpos[self.model.body("head").id, 2]

    def extremities(self) -> np.ndarray:
        """Products of matrices are taken lane by lane, as their rounding depends on the shapes."""
        offsets = np.moveaxis(self.data.xpos[self.limbs] - self.data.xpos[self.torso], -1, 0)
        frames = np.moveaxis(self.data.xmat[self.torso], -1, 0).reshape(-1, 3, 3)
        return np.stack([np.concatenate([o.dot(frame) for o in lane]) for lane, frame in zip(offsets, frames)], axis=1)

    def torso_vertical_orientation(self) -> np.ndarray:
        return self.data.xmat[self.torso, 6:]

    def center_of_mass_velocity(self) -> np.ndarray:
        start = self.model.sensor("torso_subtreelinvel").adr[0]
        return self.data.sensordata[start : start + 3]


_STACKED: Mapping[type, type[Stacked]] = {
    walker.PlanarWalker: _Walker,
    cheetah.Cheetah: _Cheetah,
    quadruped.Move: _Quadruped,
    humanoid.Humanoid: _Humanoid,
}
