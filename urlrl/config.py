"""The configuration of a run: frozen dataclasses, strict JSON."""

import dataclasses
import operator
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Generic, Literal, Protocol, TypeVar

from tyro.conf import Suppress

from urlrl.errors import UserError, check, check_all, check_choice, shown, unknown
from urlrl.renamed import renewed
from urlrl.types import BatchSpec

# What may differ when a run is continued: how far it goes and how it is kept, never what it computes. `on_nonfinite`
# decides only what the next number does that is not finite.
RESUMABLE_FIELDS = ("steps", "checkpoint_minutes", "snapshots", "keep_data", "data", "eval_env", "on_nonfinite")
# What a run that has a checkpoint may change where it is asked to: what leaves its environment and rows as they are.
CHANGEABLE = ("agent.", "steps_per_update", "min_replay", "eval_every", "precision")
MAX_SEED = 2**32 - 1  # JAX drops the bits above: a larger seed would repeat a smaller one
MAX_REPLAY = 2**31 - 1  # the replay draws its slots as int32
MAX_STEPS = 2**31 - 1  # clocks, and the updates of an epoch, are int32 on the device


class AnyAgentConfig(Protocol):
    """What an agent's own config has for the loops."""

    @property
    def batch(self) -> BatchSpec: ...


AgentConfig = TypeVar("AgentConfig", bound=AnyAgentConfig)


@dataclass(frozen=True)
class PretrainConfig(Generic[AgentConfig]):
    """A pretraining run. `*_steps` and `steps` count environment (control) steps."""

    agent: AgentConfig  # the agent's own config
    agent_name: Suppress[str] = "metra"  # a key of AGENTS or module:Class
    env: str = "half_cheetah"  # a name that make_env knows
    episode_steps: int | None = None  # time limit; None is the environment's own
    root_position: bool = False  # dmc: and dm_control's bodies of mjx: put the root's position into the observation
    on_nonfinite: Literal["stop", "end"] = "stop"  # at a NaN of a gym: or own environment: stop | end the episode
    normalizer: Literal["preset", "fit", "off"] = "preset"  # published constants | from random actions | none
    num_envs: int = 8  # environments stepped together
    stagger_resets: bool = False  # let the first episodes end one after another, so that resets never come all at once
    rollout_steps: int = 200  # steps of each environment between two learning phases
    steps_per_update: float = 32.0  # environment steps for each gradient step, as METRA has it; 0 learns nothing
    min_replay: int = 10_000  # transitions before the first update
    replay_capacity: int = 1_000_000  # transitions kept to learn from, less what is no whole step of all environments
    replay_parts: int = 1  # parts of the replay, each of some environments; a batch takes as much from each of them
    precision: Literal["float32", "tf32"] = "float32"  # of the networks' products on a GPU; physics is always float32
    loop: Literal["host", "device"] = "host"  # where it runs: simulators on the host | all of it on the device
    steps: int = 500_000  # the run's length, rounded up to whole rollouts
    seed: int = 0  # of everything random in the run
    eval_every: int = 50_000  # steps between coverage evaluations; 0 is never
    eval_env: str | None = None  # what these act in, as another simulator of the same body; None is `env`
    checkpoint_minutes: float = 2.0  # between checkpoints; 0 is after every learning phase
    snapshots: tuple[int, ...] = ()  # steps; the first checkpoint at or after each is kept for good
    keep_data: Literal["all", "window"] = "all"  # of the transitions on disk: all, or the last replay_capacity

    def __post_init__(self):
        check_all(self, "num_envs", "rollout_steps", "steps", low=1)
        check("seed", self.seed, 0, MAX_SEED)
        check("episode_steps", self.episode_steps, 1, MAX_STEPS)
        check_all(self, "steps_per_update", "min_replay", "eval_every", "checkpoint_minutes", low=0)
        for snapshot in self.snapshots:
            check("snapshots", snapshot, 1)
        self._check_replay()
        if self.learns_from_rollouts:
            self._check_rollouts()
        elif self.steps_per_update:
            self._check_updates()

    def _check_updates(self) -> None:
        if self.epoch_steps > MAX_STEPS * self.steps_per_update:
            raise UserError(
                f"steps_per_update is {self.steps_per_update}: expected 0, or one that makes at most {MAX_STEPS:,} "
                f"updates of the {self.epoch_steps} steps (num_envs * rollout_steps) between two learning phases."
            )
        if not self.updates:
            raise UserError(
                f"steps_per_update is {self.steps_per_update}: expected at most the {self.epoch_steps} steps "
                "(num_envs * rollout_steps) that are made between two learning phases."
            )

    def _check_rollouts(self) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("steps_per_update", "min_replay"):
            if getattr(self, name) != defaults[name]:
                raise UserError(
                    f"{name} is {getattr(self, name)}: expected it left out, as agent '{self.agent_name}' learns from "
                    f"each rollout once."
                )

    def _check_replay(self) -> None:
        check("replay_capacity", self.replay_capacity, 1, MAX_REPLAY)
        check("replay_parts", self.replay_parts, 1)
        if self.epoch_steps > self.replay_capacity:
            raise UserError(
                f"replay_capacity is {self.replay_capacity}: expected at least one rollout, "
                f"num_envs * rollout_steps = {self.epoch_steps}."
            )
        for what, number in (("num_envs", self.num_envs), ("the batch", self.agent.batch.size)):
            if number % self.replay_parts:
                raise UserError(
                    f"replay_parts is {self.replay_parts}: expected a divisor of {what}, which is {number}."
                )
        if self.learning_starts > self.ring_size:
            raise UserError(
                f"min_replay is {self.min_replay}: expected at most {self.ring_size}, the whole steps of all "
                f"environments in replay_capacity = {self.replay_capacity}, or learning would never begin."
            )

    @property
    def epoch_steps(self) -> int:
        """Environment steps between two learning phases."""
        return self.num_envs * self.rollout_steps

    @property
    def updates(self) -> int:
        """Updates of a learning phase: one by a rollout, or the whole number that is nearest to `steps_per_update`."""
        if self.learns_from_rollouts:
            return 1
        return round(self.epoch_steps / self.steps_per_update) if self.steps_per_update else 0

    @property
    def learns_from_rollouts(self) -> bool:
        return self.agent.batch.source == "rollout"

    @property
    def learning_starts(self) -> int:
        """Transitions before the first update."""
        return 0 if self.learns_from_rollouts else self.min_replay

    @property
    def ring_size(self) -> int:
        """`replay_capacity` in whole steps of all environments."""
        return self.replay_capacity // self.num_envs * self.num_envs


@dataclass(frozen=True)
class OfflineConfig(Generic[AgentConfig]):
    """A pretraining run on a dataset. `steps` and what else counts time count gradient steps."""

    agent: AgentConfig  # the agent's own config
    agent_name: Suppress[str] = "fb"  # a key of AGENTS or module:Class
    data: str = ""  # folder of the dataset: `urlrl data convert` makes one
    data_id: Suppress[str] = ""  # hash of its content
    env: str = ""  # what evaluations act in; empty is the environment that the dataset names
    normalizer: Literal["fit", "off"] = "off"  # mean and standard deviation of the data's observations | none
    updates: int = 500  # gradient steps of one compiled call
    precision: Literal["float32", "tf32"] = "float32"  # of matrix products on a GPU
    steps: int = 1_000_000  # the run's length, rounded up to whole calls
    seed: int = 0  # of everything random in the run
    eval_every: int = 0  # gradient steps between coverage evaluations; 0 is never
    checkpoint_minutes: float = 2.0  # between checkpoints; 0 is after every call
    snapshots: tuple[int, ...] = ()  # gradient steps; the first checkpoint at or after each is kept for good

    # The environment is taken as it is: what the dataset shows is what an agent can act on.
    episode_steps = None
    root_position = False
    on_nonfinite = "stop"

    def __post_init__(self):
        check_all(self, "updates", "steps", low=1)
        check_all(self, "eval_every", "checkpoint_minutes", low=0)
        for snapshot in self.snapshots:
            check("snapshots", snapshot, 1)
        check("seed", self.seed, 0, MAX_SEED)


RunConfig: typing.TypeAlias = PretrainConfig | OfflineConfig


def to_json(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config)


def from_json(cls: type, data: dict[str, Any], where: str = "config", default: Any = None) -> Any:
    """Build a (nested) dataclass from JSON. What the JSON leaves out is as in `default`, or else as the class has it.
    Raises UserError at an unknown key, with the nearest name."""
    hints = typing.get_type_hints(cls)
    values = {}
    for name, value in data.items():
        if name not in hints:
            raise unknown(f"key in {where}", name, hints)
        parts = typing.get_args(hints[name]) or (hints[name],)
        nested = next((part for part in parts if dataclasses.is_dataclass(part)), None)
        if nested is not None and not (value is None and type(None) in parts):
            if not isinstance(value, dict):
                raise UserError(f"{where}.{name} is {shown(repr(value))}: expected an object with its fields.")
            inner = getattr(cls if default is None else default, name, None)
            value = from_json(typing.cast(type, nested), value, f"{where}.{name}", inner)
        elif isinstance(value, list):
            value = tuple(value)
        _check_type(f"{where}.{name}", value, hints[name])
        values[name] = value
    try:
        return cls(**values) if default is None else dataclasses.replace(default, **values)
    except (TypeError, ValueError, ArithmeticError) as error:  # Fields are missing, or lists of the wrong things.
        raise UserError(f"{where} cannot be used: {error}.") from error


def changed(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """The config with other values of some settings, which have dotted names, as in {"agent.lr": 1e-4}.

    Raises:
        UserError: there is no such setting, or it cannot have that value.
    """
    data = to_json(config)
    known = flatten(data)
    for name, value in settings.items():
        if name not in known:
            raise unknown("setting", name, known)
        *path, last = name.split(".")
        reduce(operator.getitem, path, data)[last] = value
    agent = from_json(type(config.agent), data["agent"], "agent")
    return from_json(type(config), {**data, "agent": agent})


def run_config_from_json(data: dict[str, Any], agent_config: type) -> RunConfig:
    """The config of a run, from "config" in its config.json. Raises UserError where it is not one of this version's."""
    try:
        data = renewed(data)
        agent = from_json(agent_config, data["agent"], "config.agent")
        kind = OfflineConfig if "data" in data else PretrainConfig
        return from_json(kind, {**data, "agent": agent})
    except (UserError, ValueError) as error:
        raise UserError(f"config.json: {error}") from error


def _check_type(where: str, value: Any, hint: Any) -> None:
    """Scalars and choices only: what JSON can hold and a config field names."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        check_choice(where, value, typing.get_args(hint))
        return
    options = typing.get_args(hint) if origin in (types.UnionType, typing.Union) else (hint,)
    plain = tuple(t for t in options if t in (bool, int, float, str, type(None)))
    if not plain or len(plain) != len(options):
        return
    allowed = (*plain, int) if float in plain else plain
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in plain):
        raise UserError(f"{where} is {shown(repr(value))}: expected {' or '.join(t.__name__ for t in plain)}.")


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as dotted names."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
