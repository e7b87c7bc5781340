"""METRA's `ant` and `half_cheetah` (github.com/seohongpark/METRA, envs/mujoco) on Gymnasium's models of today, and
`ogbench:ant`: the body of OGBench's ant mazes, likewise on an open plane.

Observations are all of qpos (with the root's position) and qvel; no contact forces, no early termination, 200 steps.
A reset adds U(-0.1, 0.1) to the model's default qpos and 0.1 N(0, 1) to a zero qvel.

OGBench's ant has a fifth of the gear of Gymnasium's and ankles that bend less, and is asked for an action every 0.1 s
instead of 0.05 s. What is learned here acts in its mazes: away from walls they are this environment bit for bit.
"""

import importlib.util
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import mujoco
import numpy as np

from urlrl.envs.pooled import PoolEnv
from urlrl.errors import UserError
from urlrl.types import EnvSpec

FRAME_SKIP = 5  # simulation steps per control step


@dataclass(frozen=True)
class Body:
    """What distinguishes one of these environments from another."""

    package: str  # whose model it is
    model: str  # file in the package
    spec: EnvSpec
    control_cost: float  # reward per squared unit of action, negated
    alive_bonus: float  # reward per control step
    hurdles: tuple[float, ...] = ()  # x of the bars across the track, in m


_ANT_MEAN = (
    0.0049, 0.0113, 0.7022, 0.8455, -0.0010, -0.0030, 0.0031, -0.0014, 0.8607, -0.0019, -0.8557, 0.0034, -0.8586,
    -0.0011, 0.8558, 0.0028, 0.0062, -0.0258, -0.0060, -0.0038, 0.0053, -0.0059, 0.2769, 0.0051, -0.2762, -0.0033,
    -0.2767, 0.0027, 0.2776,
)  # fmt: skip
_ANT_STD = (
    0.6247, 0.6196, 0.1718, 0.2863, 0.2002, 0.2057, 0.3492, 0.4010, 0.3115, 0.4025, 0.3106, 0.4034, 0.3111, 0.4025,
    0.3110, 0.8179, 0.8167, 0.9871, 1.7525, 1.7469, 1.8596, 4.5030, 4.4070, 4.5224, 4.3518, 4.5106, 4.3704, 4.5176,
    4.3704,
)  # fmt: skip
_CHEETAH_MEAN = (
    -0.0786, -0.0863, 0.0897, 0.0096, 0.0295, -0.0095, 0.0166, -0.0548, -0.0493, -0.0806, -0.0521, 0.0450, 0.0264,
    -0.0457, 0.0318, 0.0174, 0.0092, -0.0115,
)  # fmt: skip
_CHEETAH_STD = (
    0.4039, 0.0761, 0.2382, 0.2515, 0.2698, 0.2637, 0.3223, 0.2897, 0.2774, 0.7306, 0.7736, 1.5871, 5.5405, 6.7098,
    6.8254, 6.3142, 6.4176, 5.9759,
)  # fmt: skip

ANT = Body(
    package="gymnasium",
    model="envs/mujoco/assets/ant.xml",
    spec=EnvSpec(
        id="ant", obs_dim=29, action_dim=8, episode_steps=200, control_dt=0.05, position=("x", "y"),
        goal_box=(50.0, 50.0), physics=(("qpos", 15), ("qvel", 14)), obs_is_physics=True, obs_mean=_ANT_MEAN,
        obs_std=_ANT_STD, exact_resume=True,
    ),
    control_cost=0.5,
    alive_bonus=1.0,
)  # fmt: skip
OGBENCH_ANT = replace(
    ANT,
    package="ogbench",
    model="locomaze/assets/ant.xml",
    spec=replace(ANT.spec, id="ogbench:ant", control_dt=0.1, obs_mean=None, obs_std=None),
)
HALF_CHEETAH = Body(
    package="gymnasium",
    model="envs/mujoco/assets/half_cheetah.xml",
    spec=EnvSpec(
        id="half_cheetah", obs_dim=18, action_dim=6, episode_steps=200, control_dt=0.05, position=("x",),
        goal_box=(100.0,), physics=(("qpos", 9), ("qvel", 9)), obs_is_physics=True, obs_mean=_CHEETAH_MEAN,
        obs_std=_CHEETAH_STD, exact_resume=True,
    ),
    control_cost=0.1,
    alive_bonus=0.0,
)  # fmt: skip
HALF_CHEETAH_HURDLE = replace(
    HALF_CHEETAH,
    spec=replace(HALF_CHEETAH.spec, id="half_cheetah_hurdle"),
    hurdles=(-15.0, -13.0, -9.0, -5.0, -1.0, 3.0, 7.0, 11.0, 15.0, 19.0, 23.0, 27.0),
)


def load_model(body: Body) -> mujoco.MjModel:
    """A package's MuJoCo model, with the body's hurdles: bars that float between 0.17 and 0.23 m.

    Raises:
        UserError: the package is missing.
    """
    package = importlib.util.find_spec(body.package)
    if package is None or package.origin is None:
        raise UserError(
            f"Environment '{body.spec.id}' needs the package {body.package}: pip install 'urlrl[{body.package}]'."
        )
    model = mujoco.MjSpec.from_file(str(Path(package.origin).parent / body.model))
    for x in body.hurdles:
        model.worldbody.add_geom(
            name=f"hurdle_{x:g}", type=mujoco.mjtGeom.mjGEOM_BOX, pos=[x, 0, 0.2], size=[0.05, 1, 0.03],
            conaffinity=1, rgba=[0.8, 0.4, 0.2, 1],  # The body's geoms have none: without it nothing would collide.
        )  # fmt: skip
    with warnings.catch_warnings():  # Nothing that a user of Gymnasium's model could act on.
        warnings.filterwarnings("ignore", message=".*'settotalmass' is deprecated")
        return model.compile()


class LocomotionEnv(PoolEnv):
    """`num_envs` copies of a body on a plane. The external reward is the forward velocity of qpos, plus
    `alive_bonus`, minus `control_cost * |action|^2`; Gymnasium's Ant measures the torso's lagged position instead,
    subtracts a contact cost, and gives its bonus only while it is upright."""

    def __init__(self, body: Body, num_envs: int, episode_steps: int | None = None, threads: int | None = None):
        super().__init__(body.spec, load_model(body), num_envs, episode_steps, threads)
        self.body = body

    def goal_obs(self, position: np.ndarray) -> np.ndarray:
        """The observation of a fresh reset moved to each of `position` (k, p): (k, obs)."""
        qpos, qvel = zip(*(self._reset_state((self.seed, -1 - i, 0)) for i in range(len(position))))
        obs = np.concatenate([np.stack(qpos), np.stack(qvel)], axis=1)
        obs[:, : position.shape[1]] = position
        return obs

    def _reset_state(self, seed: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([part & 0xFFFFFFFF for part in seed])
        qpos = self.model.qpos0 + rng.uniform(-0.1, 0.1, self.model.nq)
        return qpos, 0.1 * rng.standard_normal(self.model.nv)

    def _reset_lane(self, lane: int, seed: tuple[int, int, int]) -> None:
        self.pool.reset(lane, *self._reset_state(seed))

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = self.pool.qpos[:, 0].copy()
        self.pool.step(actions, FRAME_SKIP)
        forward = (self.pool.qpos[:, 0] - x) / self.env_spec.control_dt
        reward = forward + self.body.alive_bonus - self.body.control_cost * np.square(actions).sum(axis=1)
        return reward, np.zeros(self.num_envs, bool)


# Makers of these, for `urlrl.envs.ENVS`.
ant = partial(LocomotionEnv, ANT)
half_cheetah = partial(LocomotionEnv, HALF_CHEETAH)
half_cheetah_hurdle = partial(LocomotionEnv, HALF_CHEETAH_HURDLE)
ogbench_ant = partial(LocomotionEnv, OGBENCH_ANT)
