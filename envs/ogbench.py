"""`ogbench:<id>`: OGBench's environments, with states as observations (https://arxiv.org/abs/2410.20092).

They are the package's own, by the names that it registers: `antmaze-medium-v0` is what antmaze-medium-navigate-v0 and
antmaze-medium-stitch-v0, two of its datasets, were collected in. An episode starts as one of the five tasks does,
reaching the goal ends nothing, and the reward is 0, as the goal is not in the observation.

`antmaze-medium-singletask-task1-v0` is the first of that environment's five tasks, and also the name of the task.
It starts as in the package, within 1 m per axis (cubes and slides: 1 cm) of what the task says, and its goal is the
same in each episode. The reward is the package's plus 1, as TD-JEPA has it (https://arxiv.org/abs/2510.00739): 1 on
success, before it 1 less for each thing that is not where it should be. A maze has one such thing, so there it is 0.
Success ends the episode: where there is one thing to do, the return is 1 or 0, and its mean the rate of success.

Differences from the package:

- Rewards are those of the state that was reached; in the package's single-task variants, of the one before the action.
- A reset depends on (seed, lane, episode) alone. The package also draws from NumPy's global generator, which is given
  back as it was, and from action spaces that nobody seeds.
- The goal of a maze is the centre of its cell, as in the package's single-task variants. Its goal-conditioned protocol
  moves it by up to 1 m per axis, and permutes the cubes, anew in each episode.
"""

import copy
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import gymnasium
import mujoco
import numpy as np

from urlrl.envs.base import LaneByLaneEnv
from urlrl.envs.pool import STATE, saved_states
from urlrl.errors import UserError, unknown
from urlrl.types import EnvSpec

# humanoidmaze-teleport is missing: its model lacks a material, so the package cannot make it (1.2.2).
_FAMILIES = {
    "pointmaze": ("medium", "large", "giant", "teleport"),
    "antmaze": ("medium", "large", "giant", "teleport"),
    "humanoidmaze": ("medium", "large", "giant"),
    "antsoccer": ("arena", "medium"),
    "cube": ("single", "double", "triple", "quadruple", "octuple"),
    "scene": ("",),
    "puzzle": ("3x3", "4x4", "4x5", "4x6"),
}
_KINDS = tuple(f"{family}-{size}".removesuffix("-") for family, sizes in _FAMILIES.items() for size in sizes)
NUM_TASKS = 5  # of every environment
# The names of each environment's tasks, for those who read a list before anything is made.
OGBENCH_TASKS: dict[str, tuple[str, ...]] = {
    f"{kind}-v0": tuple(f"ogbench:{kind}-singletask-task{i}-v0" for i in range(1, NUM_TASKS + 1)) for kind in _KINDS
}
_BASES = {f"ogbench:{base}": base for base in OGBENCH_TASKS} | {
    task: base for base, tasks in OGBENCH_TASKS.items() for task in tasks
}
_UNSTABLE = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{what}")) for what in ("QPOS", "QVEL", "QACC")]


def make(name: str, **options: Any) -> Any:
    """One of the package's environments, reset once, as those with an arm are compiled by a reset."""
    try:
        import ogbench
    except ImportError as error:
        raise UserError(f"Environment '{name}' needs the package ogbench: pip install 'urlrl[ogbench]'.") from error
    kind = _BASES[name].removesuffix("-v0")
    # The package's function wants the name of a dataset; the part that says how it was collected can be anything.
    dataset = name.replace(f"ogbench:{kind}", f"{kind}-navigate")
    options |= {"success_timing": "post", "terminate_at_goal": "-singletask-" in name, "disable_env_checker": True}
    with _without_leftovers(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*DISPLAY")  # mujoco.viewer, which is imported and not used
        env = ogbench.make_env_and_datasets(dataset, env_only=True, **options).unwrapped
    if not is_maze(env):
        # There it is a new space at each look, seeded by nobody, and a reset takes samples from it.
        space = gymnasium.spaces.Box(-1.0, 1.0, env.action_low.shape, np.float32)
        env.__class__ = type(type(env).__name__, (type(env),), {"action_space": space})
    with drawing(env, (0,)):
        env.reset()
    return env


def _another(env: Any, name: str) -> Any:
    """A further lane. An arm's model takes half a second to compile, so it is copied; what lanes then share is
    constant, or set anew at each use."""
    if is_maze(env):
        return make(name)
    twin = copy.copy(env)
    twin._model = copy.copy(env.model)
    twin._data = mujoco.MjData(twin._model)
    return twin


@contextmanager
def _without_leftovers() -> Iterator[None]:
    """Mazes are written to a temporary file that the package neither closes nor deletes: one per lane of every
    evaluation, until a long run has no descriptors left. Inside the block its files are closed, then deleted."""
    from ogbench.locomaze import maze

    with tempfile.TemporaryDirectory(prefix="urlrl-ogbench-") as folder:

        def mkstemp(**options: Any) -> tuple[int, str]:
            with tempfile.NamedTemporaryFile(dir=folder, delete=False, suffix=options["suffix"]) as file:
                return -1, file.name

        maze.tempfile = SimpleNamespace(mkstemp=mkstemp)
        try:
            yield
        finally:
            maze.tempfile = tempfile


@contextmanager
def drawing(env: Any, entropy: tuple[int, ...]) -> Iterator[None]:
    """Whatever is drawn inside the block depends on these numbers alone: by the environment's own generator, by its
    action space, and by NumPy's global one, which is left as it was found."""
    rng = np.random.default_rng([part & 0xFFFFFFFF for part in entropy])
    env.np_random = rng
    env.action_space.seed(int(rng.integers(2**32)))
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def is_maze(env: Any) -> bool:
    return "maze_map" in vars(env)


def _physics(env: Any, info: dict[str, Any]) -> dict[str, np.ndarray]:
    """The parts of a physics row, as the package's sets have them. Where a teleport has just moved the agent, what a
    step returns is of the moment before: observation, `info` and success."""
    found = {"qpos": info.get("qpos", env.data.qpos), "qvel": info.get("qvel", env.data.qvel)}
    return found | ({"button_states": info["button_states"]} if "button_states" in info else {})


class OGBenchEnv(LaneByLaneEnv):
    """`num_envs` copies of one environment, stepped one after the other; see this file's docstring.

    Args:
        anywhere: episodes start in any free cell of the maze, as those of the package's data, instead of a task's.

    Raises:
        UserError: no such environment, or `anywhere` of what is no maze or has its own task.
    """

    def __init__(self, name: str, num_envs: int, episode_steps: int | None = None, anywhere: bool = False):
        full = f"ogbench:{name}"
        if full not in _BASES:
            raise unknown("environment", full, _BASES)
        self._base = _BASES[full]
        self._rewarded = name != self._base
        env = make(full)
        if anywhere and (self._rewarded or not is_maze(env)):
            raise UserError(f"Environment '{full}' cannot start anywhere: expected a maze without a task of its own.")
        with drawing(env, (0,)):
            obs, info = env.reset()
        parts = _physics(env, info)
        spec = EnvSpec(
            id=full,
            obs_dim=len(obs),
            action_dim=env.action_space.shape[0],
            episode_steps=gymnasium.spec(name).max_episode_steps if episode_steps is None else episode_steps,
            control_dt=float(env.dt if is_maze(env) else env.control_timestep()),
            position=("x", "y") if is_maze(env) else (),
            physics=tuple((part, len(values)) for part, values in parts.items()),
            obs_is_physics=np.array_equal(obs, np.concatenate(list(parts.values()))),
            exact_resume=True,
            ends_early=self._rewarded,
        )
        super().__init__(spec, num_envs)
        self._anywhere = anywhere
        self._envs = [env, *(_another(env, full) for _ in range(num_envs - 1))]
        # Who draws during an episode: teleports, and scenes, where a cube that was flung away is put back.
        self._draws = "teleport" in name or name.startswith("scene")
        self._rows = np.zeros((num_envs, spec.obs_dim))
        self._physics_rows = np.zeros((num_envs, spec.physics_dim))

    def position(self) -> np.ndarray:
        return self._physics_rows[:, : len(self.env_spec.position)].copy()

    def physics(self) -> np.ndarray:
        return self._physics_rows.copy()

    def goal_obs(self, position: np.ndarray) -> np.ndarray:
        """What the package shows as the goal that is at each of `position` (k, 2), in metres: (k, obs). The body, and
        the ball, are there; posture and velocity are those after a reset and a few random actions.

        Raises:
            UserError: a position is in a wall or outside, or this is no maze.
        """
        if not self.env_spec.position:
            return super().goal_obs(position)
        env, obs = self._spare, np.empty((len(position), self.env_spec.obs_dim))
        for i, (x, y) in enumerate(np.asarray(position, np.float64).tolist()):
            row, column = env.xy_to_ij((x, y))
            inside = 0 <= row < env.maze_map.shape[0] and 0 <= column < env.maze_map.shape[1]
            if not inside or env.maze_map[row, column]:
                raise UserError(f"The goal x={x:g}, y={y:g} is in a wall of '{self.env_spec.id}', or outside.")
            goal = ((y + env._offset_y) / env._maze_unit, (x + env._offset_x) / env._maze_unit)
            with drawing(env, (self.seed, -1 - i, 0)):
                obs[i] = env.reset(options=_places((1, 1), (1, 1), goal))[1]["goal"]
        return obs

    @property
    def walls(self) -> np.ndarray:
        """Of a maze: its cells, (H, W), bool. Row and column grow with y and x, as in envs/maze.py."""
        return self._envs[0].maze_map == 1

    def in_cells(self, position: np.ndarray) -> np.ndarray:
        """Positions (*B, 2), in metres, as envs/maze.py has them in a maze with these walls: in cells, from the middle
        of the maze."""
        env = self._envs[0]
        return (position + (env._offset_x, env._offset_y)) / env._maze_unit + 0.5 - np.array(self.walls.shape[::-1]) / 2

    def place(self, physics: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, float]:
        """With an arm, what is known of forces, and the hand's position of up to 2 ms ago, is no function of the state:
        these entries differ from what a step returns. Its tasks are in `urlrl.tasks`, so there is no reward."""
        del action
        return self._place(self._spare, physics), float("nan")

    def close(self, **kwargs) -> None:
        for env in (*self._envs, *([self._spare] if "_spare" in self.__dict__ else [])):
            env.close()

    def _any_places(self, env: Any) -> dict[str, Any]:
        body, other = map(tuple, env.np_random.choice(np.argwhere(~self.walls), 2, replace=False))
        return _places(body, other, other)

    @cached_property
    def _spare(self) -> Any:
        return make(f"ogbench:{self._base}", **({"add_noise_to_goal": False} if self.env_spec.position else {}))

    def _reset_lane(self, lane: int, seed: tuple[int, int, int]) -> None:
        env = self._envs[lane]
        with drawing(env, seed):
            self._rows[lane], info = env.reset(options=self._any_places(env) if self._anywhere else None)
        self._physics_rows[lane] = np.concatenate(list(_physics(env, info).values()))

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        actions = actions.astype(np.float32)
        reward, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        for i, env in enumerate(self._envs):
            if self._draws:
                with drawing(env, (self.seed, i, int(self.episode[i]), int(self.clock[i]))):
                    self._rows[i], found, ended, _, info = env.step(actions[i])
            else:
                self._rows[i], found, ended, _, info = env.step(actions[i])
            if env.data.warning.number[_UNSTABLE].any():  # MuJoCo has then reset the simulation.
                raise UserError(
                    f"The simulation of '{self.env_spec.id}' became unstable (lane {i}, step {self.clock[i] + 1} of "
                    f"its episode): expected finite accelerations."
                )
            self._physics_rows[i] = np.concatenate(list(_physics(env, info).values()))
            if self._rewarded:
                reward[i], terminated[i] = found + 1, ended
        return reward, terminated

    def _obs(self) -> np.ndarray:
        return self._rows.copy()

    def _place(self, env: Any, row: np.ndarray) -> np.ndarray:
        cuts = np.cumsum([size for _, size in self.env_spec.physics])[:-1]
        qpos, qvel, *buttons = np.split(row, cuts)
        env.set_state(qpos, qvel, *(states.astype(int) for states in buttons))
        return env.get_ob() if is_maze(env) else env.compute_observation()

    def _get_state(self) -> dict[str, np.ndarray]:
        state = saved_states([(env.model, env.data) for env in self._envs])
        saved = {"simulation": state, "observation": self._obs(), "physics": self.physics()}
        if not self.env_spec.position:
            saved["hand"] = np.stack([np.concatenate(_hand(env)) for env in self._envs])
        return saved

    def _set_state(self, state: dict[str, np.ndarray]) -> None:
        """The reset is replayed, for the goal and all else that holds for an episode."""
        for i, env in enumerate(self._envs):
            self._reset_lane(i, (self.seed, i, int(self.episode[i])))
            self._place(env, state["physics"][i])  # for the buttons
            mujoco.mj_setState(env.model, env.data, state["simulation"][i], STATE)
            mujoco.mj_forward(env.model, env.data)  # It moves the solver's warm start, hence once more.
            mujoco.mj_setState(env.model, env.data, state["simulation"][i], STATE)
            if "hand" in state:
                for part, values in zip(_hand(env), np.split(state["hand"][i], [3])):
                    part[:] = values
        self._rows[:], self._physics_rows[:] = state["observation"], state["physics"]


def _places(body: tuple[float, ...], ball: tuple[float, ...], goal: tuple[float, ...]) -> dict[str, Any]:
    """Options of a maze's reset: the cells of the body, of the ball where there is one, and of the goal."""
    return {"task_info": {"init_ij": body, "agent_init_ij": body, "ball_init_ij": ball, "goal_ij": goal}}


def _hand(env: Any) -> tuple[np.ndarray, np.ndarray]:
    """Views of where an arm's hand is, (3,), and of its orientation, (9,). The next action counts from there, and
    MuJoCo has it from before the last simulation step, so the state does not say it."""
    return env.data.site_xpos[env._pinch_site_id], env.data.site_xmat[env._pinch_site_id]
