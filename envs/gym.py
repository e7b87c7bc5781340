"""`gym:<id>` and a user's `module:function`: any Gymnasium environment with flat boxes, copied `num_envs` times.

An environment may say where it is, for coverage and goals, through its `metadata`:

    metadata = {"position": {
        "names": ["x", "y"],        # the coordinates
        "obs_index": [0, 1],        # which entries of the observation they are
        "goal_box": [3.0, 3.0],     # optional: goals are drawn in [-g, g] per coordinate
        "control_dt": 0.05,         # optional: seconds per step
    }}

Without it position metrics are left out. The state of these environments cannot be saved: a run resumes at an
episode's boundary.
"""

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from urlrl.envs.base import HostVectorEnv
from urlrl.errors import UserError
from urlrl.loading import load_module, load_object
from urlrl.types import EnvSpec

Maker = Callable[[], gymnasium.Env]


def find_maker(name: str) -> Maker:
    """What makes one environment, for `gym:<id>` or `module:function`.

    Raises:
        UserError: no such module or function. What is wrong with a Gymnasium id is said when the maker is called.
    """
    kind, _, gym_id = name.partition(":")
    if kind == "gym":
        if ":" in gym_id:  # gym:module:id; the module registers it.
            load_module(name, "environment")
        return partial(_make, name, partial(_make_registered, gym_id))
    maker = load_object(name, "environment")
    if not callable(maker):
        raise UserError(f"Environment '{name}' is a {type(maker).__name__}: expected a function that makes one.")
    return partial(_make, name, maker)


def _make(name: str, maker: Maker) -> gymnasium.Env:
    """What a user's function makes. What it raises is told with the environment's name."""
    try:
        return maker()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".: ")
        raise UserError(f"Environment '{name}' cannot be made: {reason}.") from error


def _make_registered(gym_id: str) -> gymnasium.Env:
    try:
        return gymnasium.make(gym_id)
    except (gymnasium.error.Error, ImportError) as error:
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        near = [] if gym_id in gymnasium.registry else difflib.get_close_matches(gym_id, gymnasium.registry, n=1)
        hint = f"; did you mean 'gym:{near[0]}'?" if near else "."
        raise UserError(f"Cannot make environment 'gym:{gym_id}': {reason}{hint}") from error


class GymEnv(HostVectorEnv):
    """`num_envs` environments that `maker` made. Actions in [-1, 1] are mapped onto the action box; `episode_steps`
    truncates earlier than the environment itself does. Where a step both terminates and truncates, it terminates.

    Raises:
        UserError: the spaces are not flat boxes, the action box has no bounds, or `metadata["position"]` is wrong.
    """

    def __init__(self, name: str, maker: Maker, num_envs: int, episode_steps: int | None = None):
        self._spare = maker()  # where goals' observations come from
        if not isinstance(self._spare, gymnasium.Env):
            raise UserError(f"Environment '{name}' is a {type(self._spare).__name__}: expected a gymnasium.Env.")
        obs_space = _flat_box(name, "observation", getattr(self._spare, "observation_space", None))
        self._box = _flat_box(name, "action", getattr(self._spare, "action_space", None))
        if not (np.isfinite([self._box.low, self._box.high]).all() and np.issubdtype(self._box.dtype, np.floating)):
            raise UserError(f"Environment '{name}' has the action space {self._box}: expected real, finite bounds.")
        place = self._spare.metadata.get("position")
        position = {"names": (), "obs_index": ()} if place is None else _checked_position(name, place, obs_space)
        own_limit = self._spare.spec.max_episode_steps if self._spare.spec else None
        spec = EnvSpec(
            id=name,
            obs_dim=obs_space.shape[0],
            action_dim=self._box.shape[0],
            episode_steps=min((limit for limit in (own_limit, episode_steps) if limit is not None), default=None),
            control_dt=position.get("control_dt"),
            action_bounds=tuple(zip(self._box.low.tolist(), self._box.high.tolist())),
            position=tuple(position["names"]),
            goal_box=tuple(position.get("goal_box", ())),
        )
        super().__init__(spec, num_envs)
        self._index = np.array(position["obs_index"], int)
        self._envs = [maker() for _ in range(num_envs)]
        self._rows = np.zeros((num_envs, spec.obs_dim))
        self._cut = np.zeros(num_envs, bool)  # lanes that the environment itself truncated

    def position(self) -> np.ndarray:
        return self._rows[:, self._index]

    def goal_obs(self, position: np.ndarray) -> np.ndarray:
        """Observations of fresh resets, with their position entries replaced by `position` (k, p): (k, obs)."""
        if not self.env_spec.goal_box:
            return super().goal_obs(position)
        obs = np.empty((len(position), self.env_spec.obs_dim))
        for i in range(len(position)):
            obs[i] = self._spare.reset(seed=_seed((self.seed, -1 - i, 0)))[0]
        obs[:, self._index] = position
        return obs

    def close(self, **kwargs) -> None:
        for env in (self._spare, *self._envs):
            env.close()

    def _reset_lane(self, lane: int, seed: tuple[int, int, int]) -> None:
        self._rows[lane] = self._envs[lane].reset(seed=_seed(seed))[0]

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = self._box.low.astype(np.float64), self._box.high.astype(np.float64)
        actions = np.clip((high + low) / 2 + (high - low) / 2 * actions, low, high).astype(self._box.dtype)
        reward, terminated = np.empty(self.num_envs), np.empty(self.num_envs, bool)
        for i, env in enumerate(self._envs):
            self._rows[i], reward[i], terminated[i], self._cut[i], _ = env.step(actions[i])
        return reward, terminated

    def _truncated(self) -> np.ndarray:
        return super()._truncated() | self._cut

    def _obs(self) -> np.ndarray:
        return self._rows.copy()

    def _set_state(self, state: dict[str, np.ndarray]) -> None:
        self.ended[:] = True  # The next call is a reset, which continues the sequence of episodes.


def _seed(parts: tuple[int, int, int]) -> int:
    """A seed of 32 bits, which is what every environment takes, from (seed, lane, episode)."""
    return int(np.random.SeedSequence([part & 0xFFFFFFFF for part in parts]).generate_state(1)[0])


def _flat_box(name: str, kind: str, space: gymnasium.Space | None) -> gymnasium.spaces.Box:
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise UserError(f"Environment '{name}' has the {kind} space {space}: expected a flat Box, of shape (n,).")
    return space


def _checked_position(name: str, found: Any, obs_space: gymnasium.spaces.Box) -> Mapping[str, Any]:
    """`metadata["position"]`, if it is what the module's docstring describes."""

    def listed(key: str, kind: Any, good: Callable[[Any], bool]) -> bool:
        values = found.get(key, [])
        return isinstance(values, list | tuple) and all(isinstance(v, kind) and good(v) for v in values)

    def refuse(what: str) -> UserError:
        return UserError(f"Environment '{name}' has metadata['position'] = {found}: expected {what}.")

    if not isinstance(found, Mapping) or not {"names", "obs_index"} <= set(found):
        raise refuse("a mapping with 'names' and 'obs_index'")
    if extra := set(found) - {"names", "obs_index", "goal_box", "control_dt"}:
        raise refuse(f"the keys 'names', 'obs_index', 'goal_box' and 'control_dt', not '{min(map(str, extra))}'")
    if not listed("names", str, bool) or not found["names"]:
        raise refuse("a list of strings as 'names'")
    if not listed("obs_index", int, lambda index: 0 <= index < obs_space.shape[0]):
        raise refuse(f"a list of integers in [0, {obs_space.shape[0]}) as 'obs_index'")
    if not listed("goal_box", int | float, lambda half: 0 < half < np.inf):
        raise refuse("a list of positive numbers as 'goal_box'")
    if {len(found[key]) for key in ("obs_index", "goal_box") if key in found} != {len(found["names"])}:
        raise refuse("'names', 'obs_index' and 'goal_box' of one length")
    control_dt = found.get("control_dt")
    if control_dt is not None and not (isinstance(control_dt, int | float) and 0 < control_dt < np.inf):
        raise refuse("a positive number of seconds as 'control_dt'")
    return found
