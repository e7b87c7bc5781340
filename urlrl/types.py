"""The records that loops, replays, environments and agents exchange. Everything else leans on this file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import jax
import numpy as np

from urlrl.errors import UnsupportedPrompt, UserError, check, check_all

Array: TypeAlias = jax.Array | np.ndarray
Metrics: TypeAlias = dict[str, jax.Array]


class Transition(NamedTuple):
    """One environment step, or a batch of them: every field shares its leading axes.

    `next_obs` is the state that was reached, never the state after a reset; `discount` is 0 only where the future
    counts nothing (a true termination, or what `BatchSpec.timeout_as_terminal` makes of a time limit) and 1 elsewhere.
    """

    obs: Any  # (*B, obs)
    action: Any  # (*B, act), in [-1, 1]
    reward: Any  # (*B,): the environment's own; a pretraining agent never reads it
    discount: Any  # (*B,), in {0, 1}
    next_obs: Any  # (*B, obs)
    z: Any  # (*B, z): the skill that acted
    goal: Any = None  # (*B, obs): a state to reach, where `BatchSpec.goals` asks for one
    goal_steps: Any = None  # (*B,), int32: steps from obs to goal in its episode; 0: obs is the goal; -1: any state
    future: Any = None  # (*B, n, obs): later states of the episode, where `BatchSpec.futures` asks for n
    extra: Any = None  # name -> (*B, ...): what else the agent left, `Carry.stored` and `Carry.given`; or None


class Trajectory(NamedTuple):
    """`n` episodes side by side, time first; rows after an episode's end are masked."""

    steps: Transition  # (T, n, ...)
    mask: np.ndarray  # (T, n), bool: the step happened
    position: np.ndarray | None  # (T + 1, n, p), in EnvSpec.position units; row 0 is the start
    physics: np.ndarray | None  # (T + 1, n, physics): simulator state, for rewards computed later


class GoalPrompt(NamedTuple):
    """Reach this state."""

    goal: Any  # (obs,): a full observation, in the environment's own units


class RewardPrompt(NamedTuple):
    """Maximise the reward that labels these transitions."""

    steps: Transition  # (n, ...)


class DemoPrompt(NamedTuple):
    """Do what was done here."""

    obs: Any  # (T, obs): the states of one demonstration, in order


Prompt: TypeAlias = GoalPrompt | RewardPrompt | DemoPrompt


def check_prompt(agent: Any, prompt: Any) -> None:
    """Refuse a prompt that holds nothing, observations of another width, or numbers that are not finite; and one that
    the agent, which is `Told`, cannot follow. Values that are being traced cannot be looked at.

    Raises:
        UserError: which array is wrong, how, and what was expected.
        UnsupportedPrompt: it is none of `agent.prompts`.
    """
    obs_dim = agent.normalizer.mean.shape[-1]
    many = (None, obs_dim)  # None is any number above 0
    arrays: dict[str, tuple[Any, tuple[int | None, ...]]] = {}
    match prompt:
        case GoalPrompt(goal):
            arrays = {"goal": (goal, (obs_dim,))}
        case DemoPrompt(obs):
            arrays = {"obs": (obs, many)}
        case RewardPrompt(steps):
            n = np.shape(steps.reward)[:1] or (None,)
            arrays = {
                "reward": (steps.reward, (None,)),
                "obs": (steps.obs, (*n, obs_dim)),
                "next_obs": (steps.next_obs, (*n, obs_dim)),
            }
    for name, (array, expected) in arrays.items():
        found, what = np.shape(array), f"{type(prompt).__name__}: {name}"
        fits = len(found) == len(expected) and all(size and want in (None, size) for size, want in zip(found, expected))
        if not fits:
            wanted = ", ".join("n" if size is None else str(size) for size in expected)
            raise UserError(f"{what} has shape {found}: expected ({wanted}).")
        if not isinstance(array, jax.core.Tracer) and not np.isfinite(array).all():
            raise UserError(f"{what} holds a number that is not finite: expected finite ones.")
    if not isinstance(prompt, agent.prompts):
        *names, last = (kind.__name__ for kind in agent.prompts)
        wanted = f"{', '.join(names)} or {last}" if names else last
        raise UnsupportedPrompt(f"{type(agent).__name__} cannot follow a {type(prompt).__name__}: expected a {wanted}.")


@dataclass(frozen=True)
class Goals:
    """How a goal is drawn for each transition: a later state of its episode, any state, or its own."""

    gamma: float = 0.99  # a later state is k ~ Geom(1 - gamma) >= 1 steps ahead, at most the episode's last
    random: float = 0.375  # share of goals that are any state of the data, one that a transition reached
    current: float = 0.0  # share of goals that are obs itself

    def __post_init__(self):
        check_all(self, "gamma", "random", low=0, high=1)
        check("current", self.current, 0, 1 - self.random)


@dataclass(frozen=True)
class BatchSpec:
    """What an agent wants of stored transitions. `data/draw.py` is what it comes to."""

    size: int = 256  # transitions per gradient step; of a rollout all are taken
    timeout_as_terminal: bool = False  # True: a time limit ends the future, as METRA's and CSD's released code has it
    goals: Goals | None = None  # give each transition a goal
    futures: int = 0  # how many later states of its episode come with each transition
    future_gamma: float = 0.99  # each of them is k ~ Geom(1 - future_gamma) >= 1 steps ahead, at most the last
    # replay: batches of all that was stored | rollout: an epoch's rows once, in order of time, (T, n, ...), with
    # extra["ended"]: the episode ended with this transition, for whatever reason
    source: Literal["replay", "rollout"] = "replay"
    whole_episodes: bool = False  # of a rollout: episodes begin and end with it

    def __post_init__(self):
        check("size", self.size, 1)
        check("futures", self.futures, 0)
        check("future_gamma", self.future_gamma, 0, 1)
        if self.source == "rollout" and (self.goals or self.futures):
            raise UserError("source is 'rollout': expected neither goals nor futures, which are drawn of the replay.")
        if self.whole_episodes and self.source != "rollout":
            raise UserError(f"whole_episodes is True with source '{self.source}': expected source 'rollout'.")


@dataclass(frozen=True)
class EnvSpec:
    """What an environment says of itself. Actions are in [-1, 1], or one-hot."""

    id: str  # the name that `make_env` resolves
    obs_dim: int
    action_dim: int  # numbers of a box, or choices
    episode_steps: int | None  # time limit, in control steps; None: the environment ends its episodes itself
    control_dt: float | None  # seconds per control step
    position: tuple[str, ...] = ()  # names of the coordinates `HostEnv.position` returns; () has no position metrics
    goal_box: tuple[float, ...] = ()  # goals are drawn in [-g, g] per position coordinate; () has no goal metrics
    # (name, size) of the parts of a physics row: ("qpos", 15), ... Environments with noise name these alike, each of
    # them one number, as far as they have them; `evaluation/whereabouts.py` reads them:
    #     noise          of the place where the agent is: -1 noise that goes on, 1 noise that is switched off, 0 none
    #     off            share of all noise sources that are switched off; 0 where there are none
    #     pressed        share of all noise sources whose switch was used, dead switches too; 0 where there are none
    #     room           number of the room where the agent is
    #     rooms_visited  how many were visited in this episode
    physics: tuple[tuple[str, int], ...] = ()
    action_bounds: tuple[tuple[float, float], ...] = ()  # what -1 and 1 are in the simulator's units; () is the same
    obs_is_physics: bool = False  # the observation holds all of physics, so nobody need store both
    obs_mean: tuple[float, ...] | None = None  # published normalisation constants, where there are any
    obs_std: tuple[float, ...] | None = None
    exact_resume: bool = False  # the state can be saved and continues bit for bit
    # name of the C MuJoCo environment with the same observations and dynamics; None: this already runs in C MuJoCo
    twin: str | None = None
    action: Literal["box", "onehot"] = "box"  # float32 numbers in [-1, 1] | one of `action_dim` choices, as bools
    ends_early: bool = False  # an episode may end before its time limit
    # an observation is one-hot groups of so many numbers, one for each symbol that can be seen; 0: real numbers
    symbols: int = 0
    walls: tuple[
        tuple[bool, ...], ...
    ] = ()  # of a maze: cells of 1 m around the origin, lowest row first; for pictures

    def random_actions(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """(n, act): uniform in [-1, 1], or any one of the choices."""
        if self.action == "onehot":
            return np.eye(self.action_dim, dtype=bool)[rng.integers(self.action_dim, size=n)]
        return rng.uniform(-1, 1, (n, self.action_dim))

    @property
    def physics_dim(self) -> int:
        return sum(size for _, size in self.physics)

    def physics_part(self, name: str) -> slice:
        """Where a part is in a physics row. Raises KeyError for one that is not there."""
        ends = dict(zip(dict(self.physics), accumulate(size for _, size in self.physics)))
        return slice(ends[name] - dict(self.physics)[name], ends[name])


class PlayEnv(Protocol):
    """What episodes are played in: a Gymnasium vector environment with autoreset disabled, and these.

    `step` returns float arrays of shape (n, ...); a lane that has ended must be named in a `reset` with
    `options={"reset_mask": mask}` before the next one. `reset(seed=s)` starts a new sequence of episodes from seed `s`.
    """

    env_spec: EnvSpec
    num_envs: int

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]: ...
    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]: ...
    def position(self) -> np.ndarray: ...  # (n, p): where each lane is now
    def physics(self) -> np.ndarray: ...  # (n, physics_dim)
    def goal_obs(self, position: np.ndarray) -> np.ndarray: ...  # (n, obs): a reset state moved to each position
    def close(self) -> None: ...


class HostEnv(PlayEnv, Protocol):
    """A batch of host environments, whose runs can be continued."""

    def get_state(self) -> dict[str, np.ndarray]: ...  # all that continues the run; only where exact_resume
    def set_state(self, state: dict[str, np.ndarray]) -> np.ndarray: ...  # returns the observations, (n, obs)

    # the observation (obs,) and reward of a stored state (physics,) that an action (act,) led to; no lane moves. The
    # reward is NaN where the environment has none; None where its simulator cannot be put into a state
    def place(self, physics: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, float] | None: ...


class DeviceState(NamedTuple):
    """One environment on the device after a step or a reset; loops put axes in front."""

    sim: Any  # pytree: all that the next step depends on
    obs: Any  # (obs,), float32
    reward: Any  # (), float32: of the step that led here
    terminated: Any  # (), bool: the episode has ended here, not by its time limit
    position: Any  # (p,), float32: EnvSpec.position
    physics: Any  # (physics_dim,), float32


@dataclass(frozen=True)
class DeviceEnv:
    """An environment as pure JAX functions of one state, to be mapped, scanned and compiled with what acts in it. Time
    limits are the loop's: it counts to `env_spec.episode_steps`."""

    env_spec: EnvSpec
    reset: Callable[[jax.Array], DeviceState]  # key -> the start of an episode
    step: Callable[[DeviceState, Any], DeviceState]  # action (act,) in [-1, 1] -> what was reached, never a reset
    goal_obs: Callable[[jax.Array, Any], Any] | None = None  # key, position (p,) -> obs of a reset moved there, (obs,)


class Op(NamedTuple):
    """An operation of a network that leaves JAX; `urlrl.skills.policy.OPS` lists the kinds."""

    kind: str
    inputs: tuple[str, ...]  # names: of the network's inputs, or outputs of operations before it
    output: str
    numbers: dict[str, tuple[float, ...]]
    tensors: dict[str, Any]  # by name, arrays


Graph: TypeAlias = tuple[Op, ...]  # the last one's output is the network's


class Rule(NamedTuple):
    """How a kind of prompt becomes a skill; `urlrl.skills.policy.RULES` lists them."""

    rule: str
    options: tuple[str, ...] = ()
    numbers: Mapping[str, tuple[float, ...]] = MappingProxyType({})


class SkillNetworks(NamedTuple):
    """What remains of an agent when nothing more is learned: what a skill bundle holds. Observations are normalised."""

    policy: Graph  # "obs", "z" -> the mode of the action
    features: Graph | None = None  # "obs" -> (d,): what the rules speak of
    encoder: Graph | None = None  # "states" (k, obs), "rewards" (k,) -> z
    goal: Rule | None = None
    reward: Rule | None = None
    demo: Rule | None = None
    moves: Any = None  # (d, d), of a reward's option "moves"


class Learner(Protocol):
    """Reinforcement learning on any reward: what `Agent.learner` hands over. `x` is what the actor sees, (B, in)."""

    actor: Any  # x -> a distribution with `mode()` and `sample(key, temperature)`
    acts_by: tuple[str, ...]  # its fields that decide how it acts; the others can learn alone

    def update(
        self, x: Array, action: Array, reward: Array, discount: Array, next_x: Array, key: jax.Array
    ) -> tuple["Learner", Metrics]: ...


class Skill(NamedTuple):
    """A task that is a skill: act under this z."""

    z: Any  # (z,)


class Shared(NamedTuple):
    """A part of a task that does not depend on what was asked for: it is held once, however many lanes have a task."""

    value: Any


class Each(NamedTuple):
    """A task for each lane."""

    task: Any  # pytree, every leaf (n, ...) but those of parts that are `Shared`; `acting.to_goals` makes such


class All(NamedTuple):
    """One task for all lanes, which may be too large to have a copy in each."""

    task: Any  # pytree


def split_task(task: Any) -> tuple[Any, Any]:
    """What a task has for a lane alone, and what of it is `Shared`; None stands where the other has something."""

    def is_shared(part: Any) -> bool:
        return isinstance(part, Shared)

    own = jax.tree.map(lambda part: None if is_shared(part) else part, task, is_leaf=is_shared)
    return own, jax.tree.map(lambda part: part if is_shared(part) else None, task, is_leaf=is_shared)


def join_task(own: Any, shared: Any) -> Any:
    """The reverse of `split_task`."""
    return jax.tree.map(lambda mine, all_: all_ if mine is None else mine, own, shared, is_leaf=lambda x: x is None)


class Carry(NamedTuple):
    """What an agent remembers while it acts in n lanes. `act` returns what `begin` does: the same structure and dtypes.

    All but `shared` has a row for each lane, which is begun anew where an episode ended.
    """

    stored: dict[str, Any]  # columns (n, ...) that are kept with the transition, as they are after `act`; "z" is one
    lane: Any = None  # what else is remembered, (n, ...)
    given: Any = None  # columns (n, ...) by name that only `update` is given, of rollouts
    shared: Any = None  # one for all lanes: a task, waypoints

    @property
    def z(self) -> Any:
        """(n, z): the skill of the last action; zeros before an agent that was told a task has aimed."""
        return self.stored["z"]


class Agent(Protocol):
    """Pure functions on a pytree. No method jits, logs, steps an environment or owns a random key."""

    config: Any  # frozen dataclass with at least `z: SkillSpace` and `batch: BatchSpec`
    normalizer: Any  # a Normalizer: frozen; every method takes raw observations
    abilities: frozenset[str]  # keys of ABILITIES
    shared: tuple[str, ...]  # fields that are equal in all seeds that train together, such as a counter of updates

    @classmethod
    def create(cls, config: Any, example: Transition, key: jax.Array) -> "Agent": ...  # works under jit and vmap

    def replace(self, **changes: Any) -> "Agent": ...

    # behave
    def plan(self, seen: Transition, key: jax.Array) -> Any: ...  # once per epoch: what `begin` may pick from
    def begin(self, key: jax.Array, n: int, plan: Any, task: Each | All | None = None) -> Carry: ...
    def act(self, obs: Array, carry: Carry, key: jax.Array, temperature: float = 1.0) -> tuple[jax.Array, Carry]: ...

    # learn
    def update(self, batch: Transition, key: jax.Array) -> tuple["Agent", Metrics]: ...  # never reads batch.reward


class Told(Agent, Protocol):
    """It follows prompts."""

    prompts: tuple[type, ...]  # those of Prompt that it can follow

    def read(self, prompt: Prompt, seen: Transition, key: jax.Array) -> Any: ...  # a task
    def aim(self, task: Any, obs: Array) -> jax.Array: ...  # the skill to use at each of these states, (*B, z)


class Predicts(Told, Protocol):
    """It says what it expects of a reward that it was prompted with."""

    @property
    def gamma(self) -> float: ...  # the discount of predict_return, per control step
    def predict_reward(self, task: Any, batch: Transition) -> jax.Array: ...  # (B,): what `read` made of the rewards
    def predict_return(self, task: Any, obs: Array) -> jax.Array: ...  # (*B,)


class Doubted(Predicts, Protocol):
    """It knows how far off its predictions are by design."""

    # of steps along the task and of transitions that it learned from: what RELIABILITY lists
    def reliability(self, task: Any, steps: Transition, seen: Transition, key: jax.Array) -> Metrics: ...


class Adaptable(Agent, Protocol):
    """Its policy under a skill can be improved on a reward."""

    def intrinsic_reward(self, batch: Transition) -> jax.Array: ...  # (B,)
    def learner(self, z: Array, key: jax.Array) -> Learner: ...


class Exportable(Agent, Protocol):
    """Its networks can leave JAX."""

    def skill_networks(self, seen: Transition) -> SkillNetworks: ...  # `seen` as `read` is given it


class HasLatent(Agent, Protocol):
    """It has a latent space to look at."""

    def latent(self, obs: Array) -> jax.Array: ...  # (*B, d)


class Constrained(Agent, Protocol):
    """It learns a representation under a constraint on every step."""

    def constraint(self, batch: Transition) -> jax.Array: ...  # (*B,): the constraint keeps it at 0 or above


class Selective(Agent, Protocol):
    """It cannot learn in every environment."""

    @staticmethod
    def check_env(config: Any, spec: EnvSpec) -> None: ...  # raises UserError


class Plans(Agent, Protocol):
    """It can go to goals over waypoints."""

    def planning(self, recursions: int) -> "Plans": ...  # the same agent; 0 recursions go straight
    @property
    def num_waypoints(self) -> int: ...  # transitions that `read` wants to plan a way over; 0: it goes straight


# What an agent can be asked -> the methods that this takes, and how it reads in a sentence.
ABILITIES: dict[str, tuple[tuple[str, ...], str]] = {
    "told": (("read", "aim"), "follow a prompt"),
    "predicts": (("predict_reward", "predict_return", "gamma"), "predict a reward"),
    "reliability": (("reliability",), "say how far its predictions can be trusted"),
    "adaptable": (("intrinsic_reward", "learner"), "be fine-tuned on a reward"),
    "exportable": (("skill_networks",), "be exported"),
    "latent": (("latent",), "show a latent space"),
    "constrained": (("constraint",), "say how far its constraint holds"),
    "plans": (("planning", "num_waypoints"), "plan over waypoints"),
    "selective": (("check_env",), "say which environments it can learn in"),
    "offline": ((), "learn from transitions that others collected"),
    "discrete": ((), "act by one-hot actions"),
}


def need(agent: Any, ability: str) -> None:
    """Refuse an agent, or a class of agents, that cannot be asked this. The only check there is.

    Raises:
        UnsupportedPrompt: it names the agent and the ability.
    """
    name = getattr(agent, "__name__", type(agent).__name__)
    if ability not in agent.abilities:
        raise UnsupportedPrompt(
            f"Agent {name} cannot {ABILITIES[ability][1]}: expected one with the ability '{ability}' "
            f"(`urlrl agents` lists them)."
        )
