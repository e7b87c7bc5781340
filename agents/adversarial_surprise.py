"""AS: explore and control with adversarial surprise (Fickinger et al., 2021).

https://arxiv.org/abs/2107.07394

Two players take turns in one body. Explore is paid for the surprise that Control meets afterwards, Control for seeing
what it has seen before in this episode. Noise does not attract Explore, as Control walks away from it; the dark corner
does not keep Control, as Explore takes it somewhere else.

    J^C = E[ sum_t log p(o_{t+1}; theta_t) ],   J^E = -J^C,   over the steps of Control's turns after the grace steps
    theta_{t+1} = theta_t with o_{t+1}          after these steps alone: scored, then inserted; forgotten at the reset
    x_t = (o_t, stats(theta_t), clock_t)        what both see, as both are paid by theta
    r^C_t = log p(o_{t+1}; theta_t) / std       the running deviation of its discounted returns; 0 in other steps
    r^E_t = -(the sum of r^C in the turn that follows) in the last step of Explore's turn; 0 in other steps
    PPO for each on the row of its own turns: the step after a turn's last is its next turn's first

Where an episode ends early, or the rollout does, steps that count are missing. They are paid what such a step pays on
average, to both players. So neither of them gains or loses by the end. A pay of 0, the best that log p of symbols can
be, would reward Control for ending episodes.

z is one-hot over (explore, control): told a skill, that player acts throughout, while clock and theta go on as in the
game. Untold, they take turns. With another `objective` there is one player that acts, counts and learns at every step:

    entropy     Explore, paid -log p                        minimiser   Control, paid log p: SMiRL
    rnd         Explore, paid the novelty of o_{t+1} (learners/novelty.py)

Differences from the released code, which covers one grid world (docs/fidelity.md#adversarial_surprise):
- Proper densities with a prior instead of a floored count; see learners/densities.py, where that one is "floored".
- Statistics and clock are inputs beside the observation, not behind it in its first spatial axis; the clock is the
  share of the episode, and of the turn, instead of the number of steps. With convolutions (`ppo.image`) statistics are
  more channels of the observation, whose cells are one-hot; actor and value have convolutions of their own.
- Rewards are divided by the deviation of returns over steps that count, of which steps of Explore were a part there.
- Advantages are standardised, for each player alone, as the reward at a turn's end is a sum of many; gradients of
  actor and value are scaled down apart. The value is not clipped by default.
- `next_turn` below 1 lets a player plan for its present turn more than for later ones, at 0 for that alone, as the
  planners of the paper's argument do. At 1, as there, Control may walk home at any price, to keep Explore near.
- No recurrent networks, no history of observations.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from urlrl.errors import UnsupportedPrompt, UserError, check, check_choice
from urlrl.learners.densities import DENSITIES, Density, check_density, check_image
from urlrl.learners.novelty import Novelty, NoveltyConfig
from urlrl.learners.ppo import PPO, PPOConfig, Rollout
from urlrl.learners.sac import SAC, SACConfig
from urlrl.learners.skills import SkillSpace, nothing
from urlrl.learners.statistics import Normalizer, RunningMoments
from urlrl.learners.surgery import fold_input
from urlrl.types import All, Array, BatchSpec, Carry, Each, EnvSpec, Metrics, Transition

PLAYERS = ("explore", "control")
DensityName = Literal["categorical", "bernoulli", "gaussian", "kernel", "neighbours", "floored"]
ObjectiveName = Literal["adversarial", "entropy", "minimiser", "rnd"]


class Objective(NamedTuple):
    alone: int | None  # the player that acts and counts at every step; None: they take turns
    sign: float  # a step that counts pays sign * log p
    novelty: bool = False  # it pays novelty instead


OBJECTIVES = {
    "adversarial": Objective(None, 1.0),
    "entropy": Objective(0, -1.0),
    "minimiser": Objective(1, 1.0),
    "rnd": Objective(0, 1.0, novelty=True),
}


@dataclass(frozen=True)
class AdversarialSurpriseConfig:
    z: SkillSpace = SkillSpace("onehot", 2)  # who acts: explore, control
    batch: BatchSpec = BatchSpec(source="rollout", whole_episodes=True)
    ppo: PPOConfig = PPOConfig(width=64, lr=3e-4, epochs=4, value_target="gae", max_grad_norm=0.5)  # of each player
    sac: SACConfig = SACConfig(lr=3e-4)  # what improves one of them on a task's reward; its width is that of `ppo`
    novelty: NoveltyConfig = NoveltyConfig()  # of the objective "rnd"
    objective: ObjectiveName = "adversarial"  # the game | baselines, see above
    density: DensityName = "gaussian"  # of what is seen within an episode
    symbols: int = 0  # of densities that count: numbers of a one-hot group; 0: the observation is one group
    turns: int = 4  # of an episode; the first is Explore's
    explore_steps: int = 32  # of one of its turns
    control_steps: int = 32  # of one of its turns
    grace: float = 0.5  # the first share of Control's turn, which does not count
    next_turn: float = 1.0  # what a player's next turn counts for it, in units of the present one; 0: nothing

    def __post_init__(self):
        check_choice("objective", self.objective, get_args(ObjectiveName))
        check_choice("density", self.density, get_args(DensityName))
        check("symbols", self.symbols, 0)
        for name in ("turns", "explore_steps", "control_steps"):
            check(name, getattr(self, name), 1)
        check("grace", self.grace, 0, 1)
        check("next_turn", self.next_turn, 0, 1)
        if (self.z.kind, self.z.dim) != ("onehot", 2):
            raise UserError(f"z is {self.z.kind} of {self.z.dim}: expected onehot of 2, explore and control.")
        if self.sac.width is not None:
            raise UserError(f"sac.width is {self.sac.width}: expected none, as its policy begins as one of ppo.width.")
        if not self.batch.whole_episodes:
            raise UserError(f"batch.whole_episodes is {self.batch.whole_episodes}: expected True, for whole turns.")
        if self.turns % 2:
            raise UserError(f"turns is {self.turns}: expected an even number, as Control answers each turn of Explore.")
        if self.grace_steps == self.control_steps:
            raise UserError(f"grace is {self.grace}: expected at least one step of {self.control_steps} to count.")

    @property
    def grace_steps(self) -> int:
        return round(self.grace * self.control_steps)

    @property
    def round_steps(self) -> int:
        return self.explore_steps + self.control_steps

    @property
    def episode_steps(self) -> int:
        return self.turns // 2 * self.round_steps

    @property
    def parts(self) -> dict[int, slice]:
        """The steps of a round in which each player acts; of those who do."""
        alone = OBJECTIVES[self.objective].alone
        if alone is not None:
            return {alone: slice(0, self.round_steps)}
        return {0: slice(0, self.explore_steps), 1: slice(self.explore_steps, self.round_steps)}

    @property
    def counted(self) -> slice:
        """The steps of a round that count."""
        alone = OBJECTIVES[self.objective].alone is not None
        return slice(0 if alone else self.explore_steps + self.grace_steps, self.round_steps)


class Memory(NamedTuple):
    clock: jax.Array  # (n,), int32: steps since the reset
    theta: Any  # statistics of the density, (n, ...)
    told: jax.Array  # (n,), bool: who acts was told


class AdversarialSurprise(struct.PyTreeNode):
    explore: PPO
    control: PPO
    returns: RunningMoments  # (): of the discounted returns of steps that count
    pays: RunningMoments  # (): of what these steps pay, before it is divided
    novelty: tuple[Novelty, ...]  # one, where the objective asks for it
    normalizer: Normalizer
    density: Density = struct.field(pytree_node=False)
    onehot: bool = struct.field(pytree_node=False)  # actions are
    config: AdversarialSurpriseConfig = struct.field(pytree_node=False)
    Config = AdversarialSurpriseConfig

    plan = nothing
    abilities = frozenset({"adaptable", "discrete", "selective"})
    shared = ()

    @classmethod
    def create(cls, config: AdversarialSurpriseConfig, example: Transition, key: jax.Array) -> "AdversarialSurprise":
        """`example` is one transition or a batch; only its shapes matter, and that one-hot actions are bool."""
        explore_key, control_key, novelty_key = jax.random.split(key, 3)
        dim, onehot = example.obs.shape[-1], example.action.dtype == bool
        density = DENSITIES[config.density](dim, config.symbols or dim)
        x = jnp.zeros((1, dim + density.stats(density.init()).shape[0] + 2), jnp.float32)
        action = jnp.zeros((1, example.action.shape[-1]), bool if onehot else jnp.float32)
        return cls(
            explore=PPO.create(config.ppo, x, action, explore_key),
            control=PPO.create(config.ppo, x, action, control_key),
            returns=RunningMoments.create(()),
            pays=RunningMoments.create(()),
            novelty=(Novelty.create(config.novelty, dim, novelty_key),) * OBJECTIVES[config.objective].novelty,
            normalizer=Normalizer.identity(dim),
            density=density,
            onehot=onehot,
            config=config,
        )

    @staticmethod
    def check_env(config: AdversarialSurpriseConfig, spec: EnvSpec) -> None:
        """Refuse an environment in which the game cannot be played."""
        check_density(config.density, config.symbols or spec.obs_dim, spec)
        check_image(config.ppo.image, config.density, spec)
        if spec.episode_steps != config.episode_steps:
            raise UserError(
                f"turns is {config.turns}, of {config.explore_steps} and {config.control_steps} steps in alternation, "
                f"and episodes of '{spec.id}' have {spec.episode_steps}: expected turns that fill an episode."
            )

    def begin(self, key: jax.Array, n: int, plan: Any, task: Each | All | None = None) -> Carry:
        """`task` is a Skill: the player that acts throughout."""
        del key, plan
        clock, empty = jnp.zeros(n, jnp.int32), self.density.init()
        theta = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n, *leaf.shape)), empty)
        z = self._player(clock) if task is None else jnp.broadcast_to(jnp.asarray(task.task.z), (n, self.config.z.dim))
        return Carry({"z": z}, Memory(clock, theta, jnp.full(n, task is not None)), given=_given(clock, theta))

    def act(self, obs: Array, carry: Carry, key: jax.Array, temperature=1.0) -> tuple[jax.Array, Carry]:
        """Insert what was reached by a step that counts, then act."""
        clock, theta, told = carry.lane
        before = (clock - 1) % self.config.round_steps
        counted = (clock > 0) & (before >= self.config.counted.start)
        inserted = jax.vmap(self.density.update)(theta, self._scored(obs))
        keep = jax.vmap(lambda new, old, take: jax.tree.map(partial(jnp.where, take), new, old))
        theta = keep(inserted, theta, counted)
        z = jnp.where(told[:, None], carry.z, self._player(clock))
        x = jax.vmap(self._input)(obs, theta, clock)
        keys = jax.random.split(key)
        explore, control = (ppo.actor(x).sample(k, temperature) for ppo, k in zip((self.explore, self.control), keys))
        action = jnp.where(jnp.argmax(z, axis=-1)[:, None] == 0, explore, control)
        carry = Carry({"z": z}, Memory(clock + 1, theta, told), given=_given(clock, theta))
        return action.astype(bool) if self.onehot else action, carry

    def _player(self, clock: jax.Array) -> jax.Array:
        """(n, 2): whose turn it is."""
        whose = np.zeros((self.config.round_steps, self.config.z.dim), np.float32)
        for player, part in self.config.parts.items():
            whose[part, player] = 1
        return jnp.asarray(whose)[clock % self.config.round_steps]

    def _scored(self, obs: Array) -> jax.Array:
        """What the density sees of observations."""
        return jnp.asarray(obs) if self.density.takes == "symbols" else self.normalizer(obs)

    def _input(self, obs: Array, theta: Any, clock: jax.Array) -> jax.Array:
        """x of one step."""
        config, phase = self.config, clock % self.config.round_steps
        later = (phase - config.explore_steps) / config.control_steps
        turn = jnp.where(phase < config.explore_steps, phase / config.explore_steps, later)
        time = jnp.stack([clock / config.episode_steps, turn]).astype(jnp.float32)
        return jnp.concatenate([self.normalizer(obs), self.density.stats(theta), time])

    def update(self, batch: Transition, key: jax.Array) -> tuple["AdversarialSurprise", Metrics]:
        """Score the rollout, pay the players, improve each on its own turns."""
        config, (novelty_key, *keys) = self.config, jax.random.split(key, 3)
        seen = batch.next_obs.reshape(-1, batch.next_obs.shape[-1])
        agent = self.replace(novelty=tuple(novelty.update(seen, novelty_key) for novelty in self.novelty))
        clock, ended, log_p = batch.extra["clock"], batch.extra["ended"], self.log_p(batch)
        x = jax.vmap(jax.vmap(self._input))(batch.obs, self._theta(batch), clock)
        pay = agent.novelty[0].error(batch.next_obs) if agent.novelty else OBJECTIVES[config.objective].sign * log_p
        agent, reward = agent._pay(pay, clock, ended)
        metrics = agent._measure(log_p, reward, clock)
        for player in config.parts:
            name = PLAYERS[player]
            rollout = agent._own(player, x, batch.action, reward, clock, ended)
            ppo, learned = getattr(self, name).update(rollout, keys[player])
            agent = agent.replace(**{name: ppo})
            metrics |= {f"{name}/{metric}": value for metric, value in learned.items()}
        return agent, metrics

    def log_p(self, batch: Transition) -> jax.Array:
        """log p of what each step of a rollout has reached, by what was seen before it, (T, n)."""
        return jax.vmap(jax.vmap(self.density.log_prob))(self._theta(batch), self._scored(batch.next_obs))

    def _theta(self, batch: Transition) -> Any:
        """The statistics before each step."""
        empty = self.density.init()
        return jax.tree.unflatten(jax.tree.structure(empty), [batch.extra[name] for name in _columns(empty)])

    def _pay(self, pay: jax.Array, clock: jax.Array, ended: jax.Array) -> tuple["AdversarialSurprise", jax.Array]:
        """Of what each step would pay, (T, n): the rewards. Those of steps that count are divided by the running
        deviation of their discounted returns within an episode; then Explore's are minus the sums of what follows."""
        config, counts = self.config, self.counts(clock)

        def add(total: jax.Array, row: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            paid, count, first = row
            total = jnp.where(first, 0, total)
            total = jnp.where(count, config.ppo.gamma * total + paid, total)
            return total, total

        _, totals = jax.lax.scan(add, jnp.zeros_like(pay[0]), (pay, counts, clock == 0))
        agent = self.replace(returns=self.returns.seen_where(totals, counts), pays=self.pays.seen_where(pay, counts))
        cut = ended.at[-1].set(True)
        this_turn, _ = agent._missing(clock)
        reward = jnp.where(counts, pay / (agent.returns.std + 1e-8), 0) + jnp.where(cut, this_turn, 0)
        if OBJECTIVES[config.objective].alone is not None:
            return agent, reward
        explores = clock % config.round_steps < config.explore_steps
        last = explores & (cut | (clock % config.round_steps == config.explore_steps - 1))

        def add_back(total: jax.Array, row: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            paid, cut, last = row
            total = jnp.where(cut, 0, total) + paid
            return jnp.where(last, 0, total), -total

        _, answers = jax.lax.scan(add_back, jnp.zeros_like(pay[0]), (reward, cut, last), reverse=True)
        return agent, jnp.where(explores, jnp.where(last, answers, 0), reward)

    def counts(self, clock: jax.Array) -> jax.Array:
        """Whether the steps at these times of an episode count, bool."""
        return clock % self.config.round_steps >= self.config.counted.start

    def _missing(self, clock: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the steps that count after one at `clock` pay on average, in units of the deviation: those of this
        round, and those of later ones by `next_turn`."""
        config, counted = self.config, self.config.counted
        rest = counted.stop - jnp.maximum(clock % config.round_steps + 1, counted.start)
        rounds = config.turns // 2 - 1 - clock // config.round_steps
        mean = self.pays.mean / (self.returns.std + 1e-8)
        return mean * rest, mean * config.next_turn * rounds * (counted.stop - counted.start)

    def _own(
        self, player: int, x: jax.Array, action: Array, reward: jax.Array, clock: jax.Array, ended: jax.Array
    ) -> Rollout:
        """The steps of a player's turns, one turn after another, and behind them, where a lane has fewer, such as are
        not real. Its future ends with the episode."""
        config, part = self.config, self.config.parts[player]
        phase = clock % config.round_steps
        mine = (phase >= part.start) & (phase < part.stop)
        order = jnp.argsort(~mine, axis=0, stable=True)

        def own(rows: Array) -> jax.Array:
            rows = jnp.asarray(rows)
            return jnp.take_along_axis(rows, order.reshape(*order.shape, *[1] * (rows.ndim - 2)), axis=0)

        real, episode, later = own(mine), own(jnp.cumsum(ended, axis=0) - ended), own(self._missing(clock)[1])
        last = ~real | jnp.concatenate([~real[1:] | (episode[1:] != episode[:-1]), jnp.ones_like(real[:1])])
        future = jnp.where(last, 0.0, jnp.where(own(phase) == part.stop - 1, config.next_turn, 1.0))
        sign = -1 if config.objective == "adversarial" and player == 0 else 1
        reward = own(reward) + jnp.where(last, sign * later, 0)
        decisions = real.size * (part.stop - part.start) // config.round_steps
        return Rollout(own(x), own(action), reward, future, None, last, real, decisions)

    def _measure(self, log_p: jax.Array, reward: jax.Array, clock: jax.Array) -> Metrics:
        """Of log p and rewards, (T, n): of steps that count, and of the last quarter of a turn's."""
        config, counts = self.config, self.counts(clock)
        late = counts & (clock % config.round_steps >= config.round_steps - max(1, config.control_steps // 4))
        parts = {"reward/intrinsic": (reward, counts), "control/log_p": (log_p, counts)}
        parts["control/late_log_p"] = log_p, late
        return {name: jnp.sum(x, where=there) / jnp.maximum(jnp.sum(there), 1) for name, (x, there) in parts.items()}

    def intrinsic_reward(self, batch: Transition) -> jax.Array:
        """What a step that counts would pay in an episode in which nothing was seen yet, (B,)."""
        if self.novelty:
            pay = self.novelty[0].error(batch.next_obs)
        else:
            empty = self.density.init()
            log_p = jax.vmap(lambda x: self.density.log_prob(empty, x))(self._scored(batch.next_obs))
            pay = OBJECTIVES[self.config.objective].sign * log_p
        return pay / (self.returns.std + 1e-8)

    def learner(self, z: Array, key: jax.Array) -> SAC:
        """SAC on normalised observations. Its actor is the player of z (2,), which believes for good that its first
        turn has just begun and nothing was seen yet; its critics know nothing."""
        if self.onehot:
            raise UnsupportedPrompt("The agent acts by one-hot actions: fine-tuning expects one of real ones.")
        config, obs = self.config, self.normalizer.mean
        x = jax.vmap(lambda clock: self._input(obs, self.density.init(), clock))(jnp.int32([0, config.explore_steps]))
        player = jnp.argmax(jnp.asarray(z))
        explore, control = self.explore.actor.params, self.control.actor.params
        params = jax.tree.map(lambda e, c: jnp.where(player == 0, e, c), explore, control)
        action = jnp.zeros((1, self.explore.actor.module.action_dim), jnp.float32)
        learner = SAC.create(config.sac, jnp.zeros((1, obs.shape[0])), action, key, config.ppo)
        params = fold_input(params, obs.shape[0], x[player, obs.shape[0] :])
        return learner.replace(actor=learner.actor.restart(params))


def _columns(theta: Any) -> dict[str, Any]:
    """The arrays of a density's statistics by name."""
    return {f"theta_{i}": leaf for i, leaf in enumerate(jax.tree.leaves(theta))}


def _given(clock: jax.Array, theta: Any) -> dict[str, Any]:
    """What `update` is given of each step: how it is seen, scored and paid depends on it."""
    return {"clock": clock, **_columns(theta)}
