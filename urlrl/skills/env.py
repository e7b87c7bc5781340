"""Environments whose actions are skills: what a high-level controller sees. Beside the runtime, it needs Gymnasium."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv

from urlrl.skills.policy import SkillError, SkillPolicy

Begin = Callable[[np.ndarray], Any]  # skills (n, d) -> what the policy remembers while it follows them
Act = Callable[[np.ndarray, Any], tuple[Any, Any]]  # observations (n, obs), that -> actions (n, act), that after them
FAR = 10.0  # times the spread of the observations that a bundle keeps: what is farther from them has other units
NEAR = 0.1  # between an observation and the state that it is to show, absolute and relative: sensors may be noisy
Z_SCALE = 1.5  # a choice in [-1, 1]^d times this is a skill without a fixed length (CSF's code: for DADS and CIC)


class SkillEnv(gymnasium.Wrapper):
    """`env` with an action that is the skill to perform for the next `k` control steps.

    The policy sees every control step's observation (its first entries: a task may add more), so it is feedback
    control and no replay of actions. The reward is the plain sum over the control steps; the observation is the last
    one. An episode that ends earlier ends the option. `info["control_steps"]` says how many steps it was.

    The action space is the index of a skill (Discrete) for one-hot skills, else [-1, 1]^d (Box): a vector of any
    length is projected onto unit skills, and multiplied by `Z_SCALE` for Gaussian ones. The policy's actions are mapped
    from [-1, 1] onto the bounds of `env.action_space`, which are [-1, 1] or the policy's own.

    What can be compared with the bundle is: the bounds; the control step, where the environment says it (`dt`, or
    `control_dt` in `metadata["position"]`); after each reset the observation, with those that the bundle keeps, and
    with the MuJoCo state that its names stand for, where the environment has a `model` and its `data`.

    Args:
        env: shows the observations that the policy knows, further entries behind them.
        policy: the skills; it is not changed, and several environments may share it.
        k: control steps per action, at least 1.
        discrete: whether an action is an index; None: where skills are one-hot. With one-hot skills and False, an
            action is a preference per skill, and the largest acts: for agents that need a Box.

    Raises:
        SkillError: one of these does not fit the policy; in `reset`, an observation that it does not know; in `step`,
            an action that is no skill.
    """

    def __init__(self, env: gymnasium.Env, policy: SkillPolicy, k: int = 25, discrete: bool | None = None):
        super().__init__(env)
        if not isinstance(policy, SkillPolicy):
            raise SkillError(f"policy is a {type(policy).__name__}: expected a SkillPolicy.")
        self.policy, self.k, self._kind = policy, k, policy.config["skill"]["kind"]
        if self._kind == "none":
            raise SkillError("The policy is of one task and has no skills: expected one with skills to choose from.")
        self.obs_dim, dim = policy.config["observation"]["size"], policy.config["skill"]["dim"]
        _check(k, env.observation_space, self.obs_dim)
        actions = _bounded(env.action_space, policy.config["action"])
        _check_control_dt(env, policy.config["control_dt"])
        low, high = actions.low.astype(np.float64), actions.high.astype(np.float64)
        self._middle, self._half, self._dtype = (high + low) / 2, (high - low) / 2, actions.dtype
        self.discrete = self._kind == "onehot" if discrete is None else discrete
        if self.discrete and self._kind != "onehot":
            raise SkillError(f"discrete is True: expected None or False, as these skills are of kind '{self._kind}'.")
        self.action_space = Discrete(dim) if self.discrete else Box(-1.0, 1.0, (dim,), np.float32)
        self._obs: Any = None
        rows = np.array(policy.config["golden"]["act"]["obs"])
        self._low, self._high = rows.min(axis=0), rows.max(axis=0)
        self._far = FAR * np.maximum(self._high - self._low, policy.tensors["normalizer.std"])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self._obs, info = self.env.reset(seed=seed, options=options)
        self._check_obs(np.asarray(self._obs[: self.obs_dim], np.float64))
        return self._obs, info

    def _check_obs(self, obs: np.ndarray) -> None:
        """Refuse a first observation (obs,) that is not what the policy knows."""
        names, low, high, far = self.policy.config["observation"]["names"], self._low, self._high, self._far
        state = _state(names, self.env.unwrapped)
        for known, what in (
            ((low - far <= obs) & (obs <= high + far), lambda i: f"one near {low[i]:.3g} to {high[i]:.3g}"),
            (
                ~(np.abs(obs - state) > NEAR * (1 + np.abs(state))),
                lambda i: f"{state[i]:.3g}, as the simulation has it",
            ),
        ):
            if not known.all():
                i = int(np.argmin(known))
                raise SkillError(f"The environment observes {obs[i]:.3g} as '{names[i]}': expected {what(i)}.")

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Perform a skill; returns the observation it led to, the sum of rewards, terminated, truncated, info."""
        if self._obs is None:
            raise SkillError("There is no observation yet: expected a reset before the first step.")
        z, total, taken, ended = self.skill(action), 0.0, 0, False
        while taken < self.k and not ended:
            command = self._middle + self._half * self.policy.act(self._obs[: self.obs_dim], z)
            self._obs, reward, terminated, truncated, info = self.env.step(command.astype(self._dtype))
            total, taken, ended = total + float(reward), taken + 1, terminated or truncated
        return self._obs, total, terminated, truncated, {**info, "control_steps": taken}

    def skill(self, action: Any) -> np.ndarray | int:
        """The skill that an action stands for, as the policy takes it."""
        space = self.action_space
        if not (space.contains(action) if self.discrete else np.shape(action) == space.shape):
            raise SkillError(f"The action is {action!r}: expected one of {space}.")
        if self.discrete:
            return int(action)
        return Z_SCALE * np.asarray(action) if self._kind == "gaussian" else self.policy.project(action)


class SkillVectorEnv(VectorEnv):
    """The same for `env`, a vector environment with autoreset disabled; actions are skills (n, d) as they are.

    A lane whose episode ends within an option stops there: what comes back of it is what its last step led to, and it
    must be named in a reset before the next step. The others perform all k steps; meanwhile the lane that waits is
    stepped through episodes that count for nothing, and its next episode is one of a later number.

    Raises:
        SkillError: k is no positive number, or the observations are too small.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}

    def __init__(self, env: Any, begin: Begin, act: Act, z_dim: int, k: int, obs_dim: int):
        _check(k, env.single_observation_space, obs_dim)
        self.env, self.begin, self.act, self.k, self.obs_dim = env, begin, act, k, obs_dim
        self.num_envs = env.num_envs
        self.single_observation_space = env.single_observation_space
        self.observation_space = env.observation_space
        self.single_action_space = Box(-np.inf, np.inf, (z_dim,), np.float32)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, self.num_envs)
        self.control_steps = 0  # steps of `env` that counted, over all lanes
        self._obs: Any = None
        self._ended = np.ones(self.num_envs, bool)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode in every lane, or in those of `options["reset_mask"]`; returns (n, obs) and an info."""
        self._ended &= False if options is None else ~options["reset_mask"]
        self._obs, info = self.env.reset(seed=seed, options=options)
        return self._obs, info

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """actions (n, d): one skill per lane; returns what the last of its steps led to, and the summed reward."""
        if self._ended.any():
            raise RuntimeError(f"Lanes {np.flatnonzero(self._ended).tolist()} have ended: reset them before a step.")
        obs, reached = self._obs, np.array(self._obs)
        reward, taken = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        alive, carry = np.ones(self.num_envs, bool), self.begin(actions)
        for i in range(self.k):
            action, carry = self.act(obs[:, : self.obs_dim].astype(np.float32), carry)
            obs, step_reward, ends, stops, _ = self.env.step(np.asarray(action))
            reward[alive] += step_reward[alive]
            reached[alive] = obs[alive]
            taken += alive
            terminated |= ends & alive
            truncated |= stops & alive
            alive &= ~(ends | stops)
            if not alive.any():
                break
            if (ends | stops).any() and i + 1 < self.k:
                obs, _ = self.env.reset(options={"reset_mask": ends | stops})
        self._obs, self._ended = reached, ~alive
        self.control_steps += int(taken.sum())
        return reached, reward, terminated, truncated, {"control_steps": taken}

    def get_state(self) -> dict[str, Any]:
        """All that continues it, where `env` has a `get_state` too."""
        own = {"obs": np.array(self._obs), "ended": self._ended.copy(), "control_steps": np.int64(self.control_steps)}
        return {**own, "env": self.env.get_state()}

    def set_state(self, state: dict[str, Any]) -> np.ndarray:
        """Go on from there; returns the observations, (n, obs)."""
        self.env.set_state(state["env"])
        self._obs, self._ended = np.array(state["obs"]), np.array(state["ended"])
        self.control_steps = int(state["control_steps"])
        return self._obs

    def close(self, **kwargs) -> None:
        self.env.close()


def _check(k: int, observations: Space, obs_dim: int) -> None:
    if not isinstance(k, int | np.integer) or k < 1:
        raise SkillError(f"k is {k}: expected a whole number of control steps per skill, at least 1.")
    if not isinstance(observations, Box) or len(observations.shape) != 1 or observations.shape[0] < obs_dim:
        raise SkillError(f"The environment observes {observations}: expected a flat Box of at least {obs_dim} numbers.")


def _bounded(actions: Space, known: dict[str, Any]) -> Box:
    """The action space, if a policy that acts as `known` says can act in it."""
    size, low, high = known["size"], np.float32(known["low"]), np.float32(known["high"])
    real = np.issubdtype(actions.dtype, np.floating)
    if not isinstance(actions, Box) or not real or actions.shape != (size,) or not actions.is_bounded():
        raise SkillError(f"The environment acts by {actions}: expected a Box of {size} real numbers, with bounds.")
    bounds = np.stack([actions.low, actions.high])
    if not any(np.allclose(bounds, np.broadcast_to(pair, bounds.shape)) for pair in ([low, high], [[-1.0], [1.0]])):
        raise SkillError(
            f"The environment acts by {actions}: expected the bounds {known['low']} to {known['high']} of the policy, "
            "or [-1, 1]; gymnasium.wrappers.RescaleAction maps others."
        )
    return actions


def _check_control_dt(env: gymnasium.Env, known: float | None) -> None:
    """Refuse an environment that says of its control step, in seconds, that it is another one."""
    found = getattr(env.unwrapped, "dt", None) or (env.metadata.get("position") or {}).get("control_dt")
    if known and isinstance(found, float) and abs(found - known) > 1e-6:
        raise SkillError(f"The environment has a control step of {found:g} s: expected {known:g} s, as the policy has.")


def _state(names: list[str], env: Any) -> np.ndarray:
    """What the names of an observation's entries, "qpos/<joint>" and "qvel/<joint>", stand for in the state of a MuJoCo
    simulation; NaN where they say nothing of it, or the environment shows none. Names list every entry of a joint, in
    order.

    Raises:
        SkillError: the simulation lacks such a joint.
    """
    model: Any = getattr(env, "model", None)
    data: Any = getattr(env, "data", None)
    values, seen = np.full(len(names), np.nan), Counter[tuple[str, str]]()
    if not getattr(model, "njnt", 0) or getattr(data, "qpos", None) is None:
        return values
    joints = {model.joint(i).name or f"joint_{i}": i for i in range(model.njnt)}
    parts = {"qpos": (data.qpos, model.jnt_qposadr), "qvel": (data.qvel, model.jnt_dofadr)}
    for i, name in enumerate(names):
        kind, _, rest = name.partition("/")
        if kind not in parts:
            continue
        joint = next((part for part in (rest, rest.rpartition("/")[0]) if part in joints), None)
        if joint is None:
            raise SkillError(f"The environment's model has no joint for '{name}': expected the policy's body.")
        numbers, first = parts[kind]
        values[i] = numbers[first[joints[joint]] + seen[kind, joint]]
        seen[kind, joint] += 1
    return values
