"""`gym:<id>` and a user's `module:function`: any Gymnasium environment with flat boxes, copied `num_envs` times.

An environment may say where it is, for coverage and goals, through its `metadata`:

    metadata = {"position": {
        "names": ["x", "y"],        # the coordinates
        "obs_index": [0, 1],        # which entries of the observation they are
        "goal_box": [3.0, 3.0],     # optional: goals are drawn in [-g, g] per coordinate
        "control_dt": 0.05,         # optional: seconds per step
    }}

Without it position metrics are left out. The state of these environments cannot be saved: a run resumes at an
episode's boundary. Observations must have the shape of their space; a reward or a flag may be an array of one number.
"""

import difflib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from urlrl.envs.base import LaneByLaneEnv, all_finite
from urlrl.errors import UserError, shown
from urlrl.loading import load_module, load_object
from urlrl.types import EnvSpec

logger = logging.getLogger(__name__)
Maker = Callable[[], gymnasium.Env]
_FLOATS, _FLAGS = (float, np.floating), (bool, np.bool_)  # what needs no further look


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
        near = [] if gym_id in gymnasium.registry else near_ids(gym_id)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise UserError(f"Cannot make environment 'gym:{gym_id}': {reason}{hint}") from error


def near_ids(name: str) -> list[str]:
    """`gym:<id>` of the registered id that is most like a name, if any is."""
    return [f"gym:{near}" for near in difflib.get_close_matches(name, gymnasium.registry, n=1)]


class GymEnv(LaneByLaneEnv):
    """`num_envs` environments that `maker` made. Actions in [-1, 1] are mapped onto the action box, one-hot ones onto
    the choices of a Discrete space. `episode_steps` truncates earlier than the environment itself does. Where a step
    both terminates and truncates, it terminates. With `on_nonfinite="end"`, a step to an observation or a reward that
    is not finite truncates the episode: the last finite observation and a reward of 0 stand for them. A warning counts
    these episodes.

    Raises:
        UserError: the spaces are not flat boxes, the action box has no bounds, or `metadata["position"]` is wrong.
    """

    def __init__(
        self, name: str, maker: Maker, num_envs: int, episode_steps: int | None = None, on_nonfinite: str = "stop"
    ):
        self._spare = maker()  # where goals' observations come from
        if not isinstance(self._spare, gymnasium.Env):
            raise UserError(f"Environment '{name}' is a {type(self._spare).__name__}: expected a gymnasium.Env.")
        obs_space = _flat_box(name, "observation", getattr(self._spare, "observation_space", None))
        actions: Any = getattr(self._spare, "action_space", None)
        choices = isinstance(actions, gymnasium.spaces.Discrete)
        self._actions: Any = actions if choices else _bounded(name, _flat_box(name, "action", actions))
        place = self._spare.metadata.get("position")
        position = {"names": (), "obs_index": ()} if place is None else _checked_position(name, place, obs_space)
        own_limit = self._spare.spec.max_episode_steps if self._spare.spec else None
        spec = EnvSpec(
            id=name,
            obs_dim=obs_space.shape[0],
            action_dim=int(actions.n) if choices else self._actions.shape[0],
            action="onehot" if choices else "box",
            episode_steps=min((limit for limit in (own_limit, episode_steps) if limit is not None), default=None),
            control_dt=position.get("control_dt"),
            action_bounds=() if choices else tuple(zip(self._actions.low.tolist(), self._actions.high.tolist())),
            position=tuple(position["names"]),
            goal_box=tuple(position.get("goal_box", ())),
            ends_early=True,
        )
        super().__init__(spec, num_envs)
        self._index = np.array(position["obs_index"], int)
        self._envs = [maker() for _ in range(num_envs)]
        if len({id(env.unwrapped) for env in (self._spare, *self._envs)}) <= num_envs:
            raise UserError(
                f"Environment '{name}' gives the same object twice: expected a function that makes a new one each time."
            )
        self._shape = (spec.obs_dim,)  # of an observation
        self._rows = np.zeros((num_envs, spec.obs_dim))
        self._cut = np.zeros(num_envs, bool)  # lanes that the environment itself truncated
        self._ends_nonfinite, self._ended_nonfinite = on_nonfinite == "end", 0  # episodes that were

    def position(self) -> np.ndarray:
        return self._rows[:, self._index]

    def goal_obs(self, position: np.ndarray) -> np.ndarray:
        """Observations of fresh resets, with their position entries replaced by `position` (k, p): (k, obs)."""
        if not self.env_spec.goal_box:
            return super().goal_obs(position)
        obs = np.empty((len(position), self.env_spec.obs_dim))
        for i in range(len(position)):
            obs[i] = self._start(self._spare, (self.seed, -1 - i, 0))
        obs[:, self._index] = position
        return obs

    def close(self, **kwargs) -> None:
        for env in (self._spare, *self._envs):
            env.close()

    def _reset_lane(self, lane: int, seed: tuple[int, int, int]) -> None:
        self._rows[lane] = self._start(self._envs[lane], seed)

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = self._own_actions(actions)
        reward, terminated = np.empty(self.num_envs), np.empty(self.num_envs, bool)
        for i, (env, step) in enumerate(zip(self._envs, (self.clock + 1).tolist())):
            found, where = env.step(own[i]), (i, step)
            if not (isinstance(found, tuple) and len(found) == 5):
                raise self._refusal(where, "", found, "(observation, reward, terminated, truncated, info)")
            obs, gained, ends, cuts, _ = found
            row = self._checked_obs(where, obs)
            reward[i] = gained if isinstance(gained, _FLOATS) else self._number(where, "reward", gained)
            terminated[i] = ends if isinstance(ends, _FLAGS) else self._flag(where, "termination", ends)
            self._cut[i] = cuts if isinstance(cuts, _FLAGS) else self._flag(where, "truncation", cuts)
            if self._ends_nonfinite and not (all_finite(row) and all_finite(reward[i])):
                reward[i], self._cut[i] = 0.0, True
                self._warn_of_nonfinite(where)
            else:
                self._rows[i] = row
        return reward, terminated

    def _warn_of_nonfinite(self, where: tuple[int, int]) -> None:
        """Count an episode that ended so; say it at the first one, the second, the fourth, and so on."""
        self._ended_nonfinite += 1
        if self._ended_nonfinite.bit_count() == 1:
            logger.warning(
                "Environment '%s' returned a number that is not finite (lane %d, step %d of its episode): the episode "
                "ends there. This is number %d of such episodes.",
                self.env_spec.id, *where, self._ended_nonfinite,
            )  # fmt: skip

    def _own_actions(self, actions: np.ndarray) -> Any:
        """What the environments take, one for each."""
        if self.env_spec.action == "onehot":
            return (self._actions.start + np.argmax(actions, axis=1)).tolist()
        low, high = self._actions.low.astype(np.float64), self._actions.high.astype(np.float64)
        return np.clip((high + low) / 2 + (high - low) / 2 * actions, low, high).astype(self._actions.dtype)

    def _start(self, env: gymnasium.Env, seed: tuple[int, int, int]) -> np.ndarray:
        """The first observation (obs,) of an episode."""
        try:
            found, where = env.reset(seed=_seed(seed)), (seed[1], 0)
        except TypeError as error:
            if "argument 'seed'" not in str(error):
                raise
            raise UserError(
                f"Environment '{self.env_spec.id}' has a reset that takes no seed: expected Gymnasium's, "
                "reset(*, seed=None, options=None)."
            ) from error
        if not (isinstance(found, tuple) and len(found) == 2):
            raise self._refusal(where, "", found, "(observation, info)")
        return self._checked_obs(where, found[0])

    def _checked_obs(self, where: tuple[int, int], value: Any) -> np.ndarray:
        """The observation (obs,) that an environment returned at `where`, a lane and a step. It is not broadcast."""
        array = _numbers(value)
        if array is None or array.shape != self._shape:
            raise self._refusal(where, "the observation ", value, f"numbers of shape {self._shape}")
        return array

    def _number(self, where: tuple[int, int], what: str, value: Any) -> float:
        """The one number that a reward or a flag is: many environments return it in an array."""
        array = _numbers(value)
        if array is None or array.size != 1:
            raise self._refusal(where, f"the {what} ", value, "one number")
        return array.item()

    def _flag(self, where: tuple[int, int], what: str, value: Any) -> bool:
        """A flag that is no bool: as a number it is 0 or 1."""
        number = self._number(where, what, value)
        if number not in (0, 1):
            raise self._refusal(where, f"the {what} ", value, "True or False")
        return bool(number)

    def _refusal(self, where: tuple[int, int], what: str, value: Any, expected: str) -> UserError:
        array = _numbers(value)
        kind = f"of shape {array.shape}" if array is not None else f"of type {type(value).__name__}"
        return UserError(
            f"Environment '{self.env_spec.id}' returned {what}{shown(value)}, {kind} (lane {where[0]}, step "
            f"{where[1]} of its episode): expected {expected}."
        )

    def _truncated(self) -> np.ndarray:
        return super()._truncated() | self._cut

    def _obs(self) -> np.ndarray:
        return self._rows.copy()

    def _set_state(self, state: dict[str, np.ndarray]) -> None:
        self.ended[:] = True  # The next call is a reset, which continues the sequence of episodes.


def registered(gym_id: str, num_envs: int, episode_steps: int | None = None, on_nonfinite: str = "stop") -> GymEnv:
    """What Gymnasium makes for an id."""
    name = f"gym:{gym_id}"
    return GymEnv(name, find_maker(name), num_envs, episode_steps, on_nonfinite)


def _seed(parts: tuple[int, int, int]) -> int:
    """A seed of 32 bits, which is what every environment takes, from (seed, lane, episode)."""
    return int(np.random.SeedSequence([part & 0xFFFFFFFF for part in parts]).generate_state(1)[0])


def _flat_box(name: str, kind: str, space: gymnasium.Space | None) -> gymnasium.spaces.Box:
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1 or not space.shape[0]:
        raise UserError(
            f"Environment '{name}' has the {kind} space {shown(space)}: expected a flat Box, of shape (n,) with n at "
            "least 1."
        )
    return space


def _bounded(name: str, space: gymnasium.spaces.Box) -> gymnasium.spaces.Box:
    """The action space, if [-1, 1] can be mapped onto each of its entries."""
    with np.errstate(over="ignore", invalid="ignore"):
        width = space.high.astype(np.float64) - space.low.astype(np.float64)
    if not (np.issubdtype(space.dtype, np.floating) and (width > 0).all() and np.isfinite(width).all()):
        raise UserError(
            f"Environment '{name}' has the action space {shown(space)}: expected real, finite bounds, the lower one "
            "below the upper one in each entry."
        )
    return space


def _numbers(value: Any) -> np.ndarray | None:
    """`value` as an array of real numbers; None if it is something else."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # Of rows of unequal lengths.
        return None
    return array if array.dtype.kind in "biuf" else None


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
