"""`point_mass_maze`: a point mass among four rooms, as in ExORL (https://arxiv.org/abs/2201.13425).

What is ExORL's here: the arena and the dynamics of dm_control's point mass, observation, time limit, starts and
(`urlrl.tasks.urlb`) tasks. What is not: the walls. Their geometry is in no published description that we follow, so
this maze is of our own making, and **numbers are not comparable with published ones of the same name**.

The arena is 0.6 m wide. A cross of walls, 2 cm thick, with arms of 0.2 m from the centre, parts it into four rooms, and
leaves a door of 0.1 m between the end of each arm and the outer wall, so that each room opens to its two neighbours. A
straight line between two targets is barred: the way leads round the end of an arm. At full throttle the mass moves at
0.1 m/s per axis, and needs about 4 s from a target to that of the next room.
"""

import mujoco
import numpy as np

from urlrl.envs.pooled import PoolEnv
from urlrl.types import EnvSpec

TIMESTEP, SUBSTEPS = 0.01, 2  # seconds per simulation step, and how many a control step has
ARENA = 0.3  # m, half its width
RADIUS = 0.01  # m, of the mass: its centre comes no closer to a wall
ARM, THICKNESS = 0.2, 0.01  # m, half-sizes of a wall of the cross
EDGE = ARENA + THICKNESS  # m, where the outer walls stand
WALLS = ((ARM, THICKNESS), (THICKNESS, ARM))  # half-sizes (x, y) of boxes around the origin
START = ((-0.29, -0.15), (0.15, 0.29))  # m: x and y of a start are uniform in these
TARGETS = {  # x, y in m; top is +y, left is -x
    "top_left": (-0.15, 0.15),
    "top_right": (0.15, 0.15),
    "bottom_left": (-0.15, -0.15),
    "bottom_right": (0.15, -0.15),
}
SPEC = EnvSpec(
    id="point_mass_maze", obs_dim=4, action_dim=2, episode_steps=1000, control_dt=SUBSTEPS * TIMESTEP,
    position=("x", "y"), goal_box=(ARENA - RADIUS, ARENA - RADIUS), physics=(("qpos", 2), ("qvel", 2)),
    obs_is_physics=True, exact_resume=True,
)  # fmt: skip


def _box(x: float, y: float, half_x: float, half_y: float, solid: bool) -> str:
    return (
        f'<geom type="box" pos="{x} {y} {2 * RADIUS}" size="{half_x} {half_y} {2 * RADIUS}" rgba=".45 .45 .5 1" '
        f'conaffinity="{int(solid)}"/>'
    )


# Mass, damping and gear are those of dm_control's point mass: 0.3 kg, 1 N s/m, 0.1 N. As there it is the joints' range
# that ends the arena; the outer walls are only drawn. Contacts have no friction, so the mass slides along a wall.
_XML = f"""<mujoco model="point_mass_maze">
  <option timestep="{TIMESTEP}"/>
  <default>
    <joint type="slide" limited="true" range="{RADIUS - ARENA} {ARENA - RADIUS}" damping="1"/>
    <geom condim="1" contype="0" conaffinity="0"/>
    <motor gear=".1" ctrllimited="true" ctrlrange="-1 1"/>
  </default>
  <worldbody>
    <light pos="0 0 2" directional="true" diffuse=".5 .5 .5" specular="0 0 0"/>
    <camera name="track" pos="0 0 .8"/>
    <geom type="plane" size="{ARENA} {ARENA} .1" rgba=".9 .9 .9 1"/>
    {_box(EDGE, 0, THICKNESS, EDGE, False)} {_box(-EDGE, 0, THICKNESS, EDGE, False)}
    {_box(0, EDGE, EDGE, THICKNESS, False)} {_box(0, -EDGE, EDGE, THICKNESS, False)}
    {" ".join(_box(0, 0, *half, True) for half in WALLS)}
    <body name="mass" pos="0 0 {RADIUS}">
      <joint name="x" axis="1 0 0"/>
      <joint name="y" axis="0 1 0"/>
      <geom size="{RADIUS}" mass=".3" rgba=".8 .4 .2 1" contype="1"/>
    </body>
  </worldbody>
  <actuator><motor joint="x"/><motor joint="y"/></actuator>
</mujoco>"""  # fmt: skip


class PointMassMazeEnv(PoolEnv):
    """`num_envs` mazes; an action is a force, in tenths of a newton per axis. Observations are x, y, vx, vy.

    The environment has no reward of its own, it returns 0: those are of the tasks, which need the action as well.
    """

    def __init__(self, num_envs: int, episode_steps: int | None = None, threads: int | None = None):
        super().__init__(SPEC, mujoco.MjModel.from_xml_string(_XML), num_envs, episode_steps, threads)

    def goal_obs(self, position: np.ndarray) -> np.ndarray:
        """At rest at each of `position` (k, 2): (k, 4). In a wall it is less than 3 cm from where the mass fits."""
        return np.concatenate([position, np.zeros((len(position), 2))], axis=1)

    def _reset_lane(self, lane: int, seed: tuple[int, int, int]) -> None:
        low, high = np.transpose(START)
        start = np.random.default_rng([part & 0xFFFFFFFF for part in seed]).uniform(low, high)
        self.pool.reset(lane, start, np.zeros(2))

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.pool.step(actions, SUBSTEPS)
        return np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
