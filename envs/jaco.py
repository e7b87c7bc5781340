"""`jaco:brick_<corner>` and `jaco:site_<corner>`: URLB's and ExORL's reaching tasks for the Kinova Jaco arm.

Both are dm_control.manipulation's `Reach` with the target at one corner of the table. In URLB's (55-d observations)
it is a Duplo brick that the hand can push; in ExORL's (42-d) a fixed point that is not observed, with a wider box of
starts. Numbers of the two are not interchangeable (URLB's custom_dmc_tasks/jaco.py and ExORL's). Observations are those
of dm_control's `PERFECT_FEATURES`, in its order, bit for bit: joint torques pass through sign(x) log(1 + |x|).

A reset takes dm_control's own inverse kinematics on one shared simulation; lanes are stepped in native threads.
"""

import logging
import warnings
from functools import cached_property
from types import SimpleNamespace
from typing import Any, NamedTuple

import mujoco
import numpy as np

from urlrl.envs.base import LaneByLaneEnv
from urlrl.envs.pool import STATE, Threads, saved_states, set_state
from urlrl.envs.rewards import reach_reward
from urlrl.errors import UserError, unknown
from urlrl.types import EnvSpec

with warnings.catch_warnings():  # composer changes the filters of the whole process; glfw complains of no screen.
    warnings.filterwarnings("ignore", message=".*DISPLAY")
    from dm_control import composer, mjcf
    from dm_control.entities import props
    from dm_control.manipulation import reach
    from dm_control.manipulation.shared import arenas, constants, observations, robots, workspaces

# The resets try again by themselves, from other joint angles.
logging.getLogger("absl").addFilter(lambda record: "Failed to converge" not in record.getMessage())

CORNERS = {  # x, y in m; top is +y, left is -x
    "top_left": (-0.09, 0.09),
    "top_right": (0.09, 0.09),
    "bottom_left": (-0.09, -0.09),
    "bottom_right": (0.09, -0.09),
}
TARGET_Z = 0.001  # m: where the site is, and where the brick is dropped from
START_BOXES = {  # the tool centre point's, in m
    "brick": workspaces.BoundingBox(lower=(-0.1, -0.1, 0.2), upper=(0.1, 0.1, 0.4)),
    "site": workspaces.BoundingBox(lower=(-0.2, -0.2, 0.02), upper=(0.2, 0.2, 0.4)),
}
NAMES = [f"{kind}_{corner}" for kind in START_BOXES for corner in CORNERS]
EPISODE_STEPS = 250  # 10 s
START_TRIES = 10  # each samples up to ten poses of the hand


class Simulation(NamedTuple):
    """dm_control's task and the simulation that its resets work on."""

    task: reach.Reach
    physics: mjcf.Physics
    kind: str
    target: tuple[float, float, float]  # m

    @property
    def model(self) -> mujoco.MjModel:
        return self.physics.model.ptr

    @property
    def tcp(self) -> int:
        """The site between the fingers that is to reach the target."""
        return self.model.site(self.task.hand.tool_center_point.full_identifier).id

    @property
    def brick(self) -> int | None:
        """The body whose origin is the target."""
        return self.model.body("duplo2x4/").id if self.kind == "brick" else None


def make_simulation(name: str) -> Simulation:
    """The simulation of `brick_<corner>` or `site_<corner>`.

    Raises:
        UserError: no such name.
    """
    if name not in NAMES:
        raise unknown("environment", f"jaco:{name}", [f"jaco:{known}" for known in NAMES])
    kind, _, corner = name.partition("_")
    target = (*CORNERS[corner], TARGET_Z)
    settings = observations.PERFECT_FEATURES
    brick = props.Duplo() if kind == "brick" else None
    if brick:
        brick.initialize_episode_mjcf(np.random.RandomState(0))  # Sets the radius of the studs; nothing is random.
    task = reach.Reach(
        arena=arenas.Standard(),
        arm=robots.make_arm(settings),
        hand=robots.make_hand(settings),
        prop=brick,
        obs_settings=settings,
        workspace=SimpleNamespace(
            target_bbox=workspaces.BoundingBox(target, target),
            tcp_bbox=START_BOXES[kind],
            arm_offset=robots.ARM_OFFSET,
        ),
        control_timestep=constants.CONTROL_TIMESTEP,
    )
    return Simulation(task, mjcf.Physics.from_mjcf_model(task.root_entity.mjcf_model), kind, target)


class JacoEnv(LaneByLaneEnv):
    """`num_envs` arms; actions in [-1, 1] are mapped onto the ranges of nine velocity servos, 0.04 s per step.

    Raises:
        UserError: no such name, or a simulation that does not stay finite.
    """

    def __init__(self, name: str, num_envs: int, episode_steps: int | None = None, threads: int | None = None):
        self.simulation = make_simulation(name)
        self.model = self.simulation.model
        low, high = self.model.actuator_ctrlrange.T
        self._middle, self._half = (high + low) / 2, (high - low) / 2
        self._substeps = self.simulation.task.physics_steps_per_control_step
        self._data = [mujoco.MjData(self.model) for _ in range(num_envs)]
        self._pool = Threads(num_envs, threads)
        self._read = _Reader(self.simulation)
        spec = EnvSpec(
            id=f"jaco:{name}",
            obs_dim=self._read(self._data[0]).size,
            action_dim=self.model.nu,
            episode_steps=EPISODE_STEPS if episode_steps is None else episode_steps,
            control_dt=self.simulation.task.control_timestep,
            action_bounds=tuple((float(a), float(b)) for a, b in self.model.actuator_ctrlrange),
            physics=(("qpos", self.model.nq), ("qvel", self.model.nv)),
            exact_resume=True,
        )
        super().__init__(spec, num_envs)
        self._rows = np.zeros((num_envs, spec.obs_dim))

    def physics(self) -> np.ndarray:
        return np.stack([np.concatenate([data.qpos, data.qvel]) for data in self._data])

    def place(self, physics: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, float]:
        """Its tasks are in `urlrl.tasks`, so there is no reward."""
        set_state(self.model, self._spare, physics, self._middle + self._half * action)
        return self._read(self._spare), float("nan")

    @cached_property
    def _spare(self) -> mujoco.MjData:
        return mujoco.MjData(self.model)

    def close(self, **kwargs) -> None:
        self._pool.close()

    def _reset_lane(self, lane: int, seed: tuple[int, int, int]) -> None:
        physics = self.simulation.physics
        random = np.random.RandomState([part & 0xFFFFFFFF for part in seed])
        for _ in range(START_TRIES):
            try:
                with physics.reset_context():
                    self.simulation.task.initialize_episode(physics, random)
                break
            except composer.EpisodeInitializationError:  # The hand did not find a pose; the draws go on.
                continue
        else:
            raise UserError(
                f"Environment '{self.env_spec.id}' found no start without a collision in {START_TRIES} tries: "
                "expected one."
            )
        mujoco.mj_copyData(self._data[lane], self.model, physics.data.ptr)
        self._rows[lane] = self._read(self._data[lane])

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        controls = self._middle + self._half * actions

        def work(share: range) -> None:
            for i in share:
                self._advance(i, controls[i])

        self._pool.run(work)
        tcp, brick = self.simulation.tcp, self.simulation.brick
        hand = np.stack([data.site_xpos[tcp] for data in self._data])
        target = self.simulation.target if brick is None else np.stack([data.xpos[brick] for data in self._data])
        return reach_reward(hand, target), np.zeros(self.num_envs, bool)

    def _advance(self, lane: int, control: np.ndarray) -> None:
        """`composer.Environment.step`: positions and velocities are of the state reached, torques of the last step."""
        data = self._data[lane]
        data.ctrl[:] = control
        mujoco.mj_step2(self.model, data)
        mujoco.mj_step(self.model, data, self._substeps - 1)
        mujoco.mj_step1(self.model, data)
        if data.warning.number.any():
            raise UserError(
                f"The simulation of '{self.env_spec.id}' is invalid (lane {lane}, step {self.clock[lane] + 1} of its "
                "episode): expected one that stays finite."
            )
        self._rows[lane] = self._read(data)

    def _obs(self) -> np.ndarray:
        return self._rows.copy()

    def _get_state(self) -> dict[str, np.ndarray]:
        state = saved_states([(self.model, data) for data in self._data])
        return {"simulation": state, "observation": self._obs()}

    def _set_state(self, state: dict[str, np.ndarray]) -> None:
        """Observations are saved too, as torques are no function of the simulation's state."""
        for data, row in zip(self._data, state["simulation"]):
            mujoco.mj_resetData(self.model, data)
            mujoco.mj_setState(self.model, data, row, STATE)
            mujoco.mj_step1(self.model, data)  # The first half of the next step, which begins with mj_step2.
        self._rows[:] = state["observation"]


class _Reader:
    """What is observed of one simulation: URLB's and ExORL's layout, (55,) or (42,)."""

    def __init__(self, simulation: Simulation):
        model, task = simulation.model, simulation.task
        arm = [model.joint(joint.full_identifier) for joint in task.arm.joints]
        hand = [model.joint(joint.full_identifier) for joint in task.hand.joints]
        torques = [model.sensor(sensor.full_identifier) for sensor in task.arm.joint_torque_sensors]
        brick = ("angular_velocity", "linear_velocity", "orientation", "position") if simulation.kind == "brick" else ()
        self.arm_qpos, self.arm_qvel = _places(arm, "qposadr"), _places(arm, "dofadr")
        self.hand_qpos, self.hand_qvel = _places(hand, "qposadr"), _places(hand, "dofadr")
        self.axes = np.stack([joint.axis for joint in arm])
        self.torques = np.stack([sensor.adr + np.arange(3) for sensor in torques])
        sensors = [model.sensor(f"duplo2x4/{part}") for part in brick]
        self.brick = np.array([i for sensor in sensors for i in sensor.adr + np.arange(sensor.dim[0])], int)
        self.tcp = simulation.tcp

    def __call__(self, data: mujoco.MjData) -> np.ndarray:
        angles = data.qpos[self.arm_qpos]
        torques = np.einsum("ij,ij->i", data.sensordata[self.torques], self.axes)
        parts = (
            np.stack([np.sin(angles), np.cos(angles)], axis=1).ravel(),
            np.sign(torques) * np.log1p(np.abs(torques)),
            data.qvel[self.arm_qvel],
            data.qpos[self.hand_qpos],
            data.qvel[self.hand_qvel],
            data.site_xpos[self.tcp],
            data.site_xmat[self.tcp],
            data.sensordata[self.brick],
        )
        return np.concatenate(parts)


def _places(joints: list[Any], address: str) -> np.ndarray:
    return np.array([getattr(joint, address)[0] for joint in joints])
