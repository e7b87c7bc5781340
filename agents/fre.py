"""FRE: functional reward encodings (Frans, Park, Abbeel, Levine, 2024).

https://arxiv.org/abs/2402.17135

A reward function is told by a handful of states and its rewards there. A variational encoder makes a latent w of them,
from which a decoder can tell the reward of other states; a policy that is conditioned on w is trained by IQL on reward
functions that are drawn at random. Told a new one, it acts at once.

    q(w | (s_k, r_k))    N(mu, std^2) of K pairs                                   (learners/reward_encoder.py)
    rewards              goal, linear, mlp, in equal shares                        (learners/reward_priors.py)
    L_enc                mean (dec(w, s_d) - r(s_d))^2 + beta KL(q, N(0, 1)),  w ~ q; d are D other states
    policy               IQL on r(s) with [w ; s], w = mu                          (learners/iql.py)

Two phases: for `warmup` updates encoder and decoder learn alone, afterwards the policy alone, and the encoder stays.

What is told are the states s that the data was in and what r pays there. Our tasks pay for the state s' that was
reached, so the pairs of a prompt are (s', r).

Differences from the released code (docs/fidelity.md#fre): the KL term and the samples of w read the encoder's second
output as the same thing, the logarithm of a standard deviation (there the KL reads a log-variance), and after the
warm-up Adam's momentum does not move the encoder any more; the states from anywhere are of the batch (there every
reward has states of its own); random networks are drawn anew (there of 10,000 that are fixed); a linear reward is never
zero everywhere; the smallest and largest reward of a prompt are told as -1 and 1 (there rewards are told as they are,
clipped), as most random functions reach both; IQL's values and critics are normalised after a GELU, as HILP's, and its
policy has ReLU without a normalisation (there all of them are normalised before a mish); its targets average the
critics alone; where a prompt is longer than `encode`, the encodings of so many each are averaged, which is ours (there
a prompt is always 32). There are no columns that the encoder sees and the policy does not: for walker and cheetah the
released code adds speed, height and uprightness, on which its velocity tasks are defined.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import UserError, check, check_all
from urlrl.learners import graphs
from urlrl.learners.iql import IQL, IQLConfig
from urlrl.learners.model import Model, check_network, minimise_jointly, one_row
from urlrl.learners.nets import MLP, SoftBins, gelu_tanh
from urlrl.learners.reward_encoder import RewardEncoder, kl
from urlrl.learners.reward_priors import Labels, Prior, States, find_prior, label, reached
from urlrl.learners.skills import SkillSpace, hold_skill, nothing
from urlrl.learners.statistics import Normalizer
from urlrl.types import (
    Array,
    BatchSpec,
    GoalPrompt,
    Metrics,
    RewardPrompt,
    Rule,
    SkillNetworks,
    Transition,
    check_prompt,
)

POLICY = IQLConfig(tau=0.001, expectile=0.8, inverse_temperature=3.0, online_advantage=True)


@dataclass(frozen=True)
class FREConfig:
    z: SkillSpace = SkillSpace("gaussian", 128)  # encodings of reward functions
    batch: BatchSpec = BatchSpec(size=512, futures=7)  # what a gradient step sees
    rewards: tuple[str, ...] = ("goal", "linear", "mlp")  # priors, in equal shares; also "module:function"
    position: tuple[int, ...] = ()  # indices of the observation that say where the body is; () is none
    goal_radius: float = 1.0  # below this distance, of the position or of all, a goal is reached
    goal_scale: tuple[float, ...] = ()  # what distances to a goal are divided by, in each coordinate; () is 1
    mlp_scale: float = 1.0  # what random networks multiply states by: more for normalised ones, or most are constant
    encode: int = 32  # K, states that tell a reward
    decode: int = 8  # D, states that the decoder is asked about
    encoder_width: int = 128  # of the transformer
    encoder_depth: int = 2  # its blocks
    encoder_heads: int = 2  # of attention
    beta: float = 0.01  # weight of the KL term
    warmup: int = 150_000  # gradient steps of the encoder, before the policy's
    width: int = 512  # units of every other hidden layer, of every network that has no width of its own
    depth: int = 3  # hidden layers of every other network that has no depth of its own
    lr: float = 1e-4  # Adam, of every network that has no rate of its own
    iql: IQLConfig = POLICY  # the policy's learner
    position_bins: int = 0  # soft bins of each coordinate of the position, for the policy instead of it; 0 is none
    position_range: tuple[float, float] = (0.0, 35.0)  # from the first to the last bin

    def __post_init__(self):
        check_network(self)
        if self.z.kind != "gaussian":
            raise UserError(f"z.kind is '{self.z.kind}': expected 'gaussian' for FRE, the prior of encodings.")
        check_all(self, "decode", "encoder_depth", "encoder_heads", "depth", low=1)
        check("encode", self.encode, self.batch.futures + 2)
        check("encoder_width", self.encoder_width, 2 * self.encoder_heads)
        if self.encoder_width % (2 * self.encoder_heads):
            raise UserError(
                f"encoder_width is {self.encoder_width}: expected a multiple of {2 * self.encoder_heads}, as it has "
                f"{self.encoder_heads} heads."
            )
        check_all(self, "beta", "warmup", "position_bins", low=0)
        check_all(self, "goal_radius", "mlp_scale", low=0, open_low=True)
        if not all(scale > 0 for scale in self.goal_scale):
            raise UserError(f"goal_scale is {self.goal_scale}: expected numbers above 0.")
        if not self.rewards or self.batch.size < len(self.rewards):
            raise UserError(f"rewards is {self.rewards}: expected at least one prior, and no more than a batch holds.")
        if self.position_bins == 1 or (self.position_bins and not self.position):
            raise UserError(
                f"position_bins is {self.position_bins}: expected 0, or at least 2 and the indices of a position."
            )
        self.priors()

    def bins(self) -> SoftBins:
        """What the policy's networks see of observations."""
        return SoftBins(self.position, self.position_bins, *self.position_range)

    def about(self) -> States:
        """The priors' share of this."""
        return States(self.batch.futures, self.position, self.goal_radius, self.mlp_scale, self.goal_scale)

    def priors(self) -> list[Prior]:
        return [find_prior(name, self.about()) for name in self.rewards]


class Encoded(NamedTuple):
    """A task: an encoding of (rewards - middle) / scale, which lie in [-1, 1]."""

    w: jax.Array  # (d,)
    middle: jax.Array  # ()
    scale: jax.Array  # ()


class FRE(struct.PyTreeNode):
    encoder: Model  # states (*B, K, obs), rewards (*B, K) -> mean, log standard deviation (*B, d)
    decoder: Model  # [w ; s] -> (*B, 1)
    iql: IQL
    updates: jax.Array  # (), int32: gradient steps so far
    normalizer: Normalizer
    config: FREConfig = struct.field(pytree_node=False)
    Config = FREConfig

    begin, act = hold_skill()
    plan = nothing
    abilities = frozenset({"told", "predicts", "adaptable", "exportable", "offline"})
    prompts = (RewardPrompt, GoalPrompt)
    shared = ("updates",)

    @classmethod
    def create(cls, config: FREConfig, example: Transition, key: jax.Array) -> "FRE":
        """`example` is one transition or a batch; only its shapes matter."""
        encoder_key, decoder_key, iql_key = jax.random.split(key, 3)
        obs_dim = example.obs.shape[-1]
        if bad := [i for i in config.position if not 0 <= i < obs_dim]:
            raise UserError(f"position names entry {bad[0]} of an observation of {obs_dim} numbers.")
        if (scales := len(config.goal_scale)) not in (0, obs_dim):
            raise UserError(
                f"goal_scale has {scales} numbers: expected one for each of the {obs_dim} of an observation, or none."
            )
        (obs, action), w = one_row(example), jnp.zeros((1, config.z.dim), jnp.float32)
        encoder = RewardEncoder(config.z.dim, config.encoder_width, config.encoder_depth, config.encoder_heads)
        states, rewards = jnp.zeros((1, config.encode, obs_dim), jnp.float32), jnp.zeros((1, config.encode))
        decoder = MLP(1, config.width, config.depth, activation=gelu_tanh, norm=True)
        return cls(
            encoder=Model.create(encoder, config.lr, encoder_key, states, rewards),
            decoder=Model.create(decoder, config.lr, decoder_key, _join(w, obs)),
            iql=IQL.create(config.iql, _join(w, config.bins()(obs)), action, iql_key, config),
            updates=jnp.int32(0),
            normalizer=Normalizer.identity(obs_dim),
            config=config,
        )

    def update(self, batch: Transition, key: jax.Array) -> tuple["FRE", Metrics]:
        """Draw reward functions; improve their encoding or, after the warm-up, the policy for them."""
        phases = (FRE.improve_encoding, FRE.improve_policy)
        # Both return all metrics, those of the other phase as 0.
        names = [jax.eval_shape(phase, self, batch, key)[1] for phase in phases]
        nothing = {name: jnp.zeros(x.shape, x.dtype) for metrics in names for name, x in metrics.items()}

        def filled(phase):
            def run(agent):
                stepped, metrics = phase(agent, batch, key)
                return stepped, nothing | metrics

            return run

        agent, metrics = jax.lax.cond(self.updates < self.config.warmup, *map(filled, phases), self)
        return agent.replace(updates=self.updates + 1), metrics

    def improve_encoding(self, batch: Transition, key: jax.Array) -> tuple["FRE", Metrics]:
        """A step of encoder and decoder."""
        draw_key, noise_key = jax.random.split(key)
        states, labels = self._draw(batch, draw_key)

        def loss(params):
            mean, log_std = self.encoder(states, labels.encode, params=params[0])
            w = mean + jnp.exp(log_std) * jax.random.normal(noise_key, mean.shape)
            told = jnp.broadcast_to(w[:, None], (*labels.decode.shape, w.shape[-1]))
            decoded = self.decoder(_join(told, labels.decode_states), params=params[1])[..., 0]
            error, divergence = jnp.mean((decoded - labels.decode) ** 2), jnp.mean(kl(mean, log_std))
            return error + self.config.beta * divergence, (error, divergence)

        (encoder, decoder), _, (error, divergence) = minimise_jointly((self.encoder, self.decoder), loss)
        metrics = {"encoder/error": error, "encoder/kl": divergence}
        return self.replace(encoder=encoder, decoder=decoder), metrics

    def improve_policy(self, batch: Transition, key: jax.Array) -> tuple["FRE", Metrics]:
        """A step of value, critics and actor."""
        draw_key, iql_key = jax.random.split(key)
        states, labels = self._draw(batch, draw_key)
        w, _ = self.encoder(states, labels.encode)
        reward = labels.encode[:, 0]  # of s
        discount = batch.discount * (1 - labels.ends)
        x, next_x = self._input(batch.obs, w), self._input(batch.next_obs, w)
        iql, metrics = self.iql.update(x, batch.action, reward, discount, next_x, iql_key)
        return self.replace(iql=iql), {**metrics, "reward/intrinsic": jnp.mean(reward)}

    def _draw(self, batch: Transition, key: jax.Array) -> tuple[jax.Array, Labels]:
        """What tells each reward, (B, K, obs): the state, later ones of its episode, then any; and the rewards, there
        and where the decoder is asked."""
        states_key, label_key = jax.random.split(key)
        obs, future = self.normalizer(batch.obs), self.normalizer(batch.future)
        n, later, config = obs.shape[0], future.shape[1], self.config
        drawn = jax.random.randint(states_key, (n, config.encode - 1 - later + config.decode), 0, n)
        anywhere = obs[drawn]
        states = jnp.concatenate([obs[:, None], future, anywhere[:, config.decode :]], axis=1)
        return states, label(config.priors(), label_key, states, anywhere[:, : config.decode])

    def sample_actions(self, obs: Array, z: Array, key: jax.Array, temperature: float = 1.0) -> jax.Array:
        """(*B, act) in [-1, 1]; temperature 0 is the mode."""
        return self.iql.actor(self._input(obs, z)).sample(key, temperature)

    def encode(self, states: Array, rewards: Array) -> jax.Array:
        """w (*B, d) of raw states (*B, K, obs) and rewards (*B, K) in [-1, 1]: the mean of the encoder's."""
        mean, _ = self.encoder(self.normalizer(states), rewards)
        return mean

    def decode(self, z: Array, obs: Array) -> jax.Array:
        """What the reward of encodings (*B, d) is at raw states (*B, obs), (*B,)."""
        return self.decoder(_join(z, self.normalizer(obs)))[..., 0]

    def intrinsic_reward(self, batch: Transition) -> jax.Array:
        """The reward that z stands for, decoded at s', (B,)."""
        return self.decode(batch.z, batch.next_obs)

    def read(self, prompt: RewardPrompt | GoalPrompt, seen: Transition, key: jax.Array) -> Encoded:
        """A reward is the encoding of its pairs (s', r): of more than `encode` the mean of encodings of so many each.
        Before, the smallest and the largest reward are made -1 and 1, which changes nothing of what is best to do; if
        all are equal they become 0. A goal is told as the prior's goals are, at states of `seen`."""
        check_prompt(self, prompt)
        match prompt:
            case RewardPrompt(steps):
                reward = jnp.asarray(steps.reward, jnp.float32)
                low, high = jnp.min(reward), jnp.max(reward)
                middle, scale = (low + high) / 2, jnp.where(high > low, (high - low) / 2, 1.0)
                return Encoded(self._read_pairs(jnp.asarray(steps.next_obs), (reward - middle) / scale), middle, scale)
            case GoalPrompt(goal):
                picks = jax.random.randint(key, (self.config.encode - 1,), 0, seen.obs.shape[0])
                w = self.encode_goal(jnp.asarray(goal), jnp.asarray(seen.obs)[picks])
                return Encoded(w, jnp.float32(0), jnp.float32(1))

    def encode_goal(self, goal: jax.Array, others: jax.Array) -> jax.Array:
        """w (d,) of a goal (obs,), told at itself and at other states (encode - 1, obs)."""
        states = jnp.concatenate([goal[None], others])
        scaled = self.normalizer(states)
        return self._read_pairs(states, jnp.where(reached(scaled, scaled[0], self.config.about()), 0.0, -1.0))

    def _read_pairs(self, states: jax.Array, rewards: jax.Array) -> jax.Array:
        """w (d,) of n states and rewards."""
        n, size = rewards.shape[0], min(self.config.encode, rewards.shape[0])
        whole = n // size * size
        return jnp.mean(
            self.encode(states[:whole].reshape(-1, size, states.shape[-1]), rewards[:whole].reshape(-1, size)), axis=0
        )

    def aim(self, task: Encoded, obs: Array) -> jax.Array:
        """The task's w at each of these states, (*B, d)."""
        return jnp.broadcast_to(task.w, (*obs.shape[:-1], task.w.shape[-1]))

    @property
    def gamma(self) -> float:
        """Of `predict_return`: the policy's discount."""
        return self.config.iql.gamma

    def predict_reward(self, task: Encoded, batch: Transition) -> jax.Array:
        """What the decoder makes of it at s', (B,)."""
        return task.middle + task.scale * self.decode(self.aim(task, batch.next_obs), batch.next_obs)

    def predict_return(self, task: Encoded, obs: Array) -> jax.Array:
        """The discounted return from these states, (*B,), without end. The first reward in it is that of the states
        themselves, where a measured return begins with the next ones."""
        value = self.iql.value(self._input(obs, self.aim(task, obs)))[..., 0]
        return task.middle / (1 - self.gamma) + task.scale * value

    def learner(self, z: Array, key: jax.Array) -> IQL:
        """IQL on normalised observations that starts as the policy under z, with the critics and the value of z: they
        know what the reward that z stands for is worth, and z was chosen because it resembles the task's."""
        del key
        return self.iql.hold_input(0, z).with_bins(self.config.bins())

    def skill_networks(self, seen: Transition) -> SkillNetworks:
        del seen
        about, group = self.config.about(), {"group": (self.config.encode,)}
        near = {"position": about.position, "scale": about.goal_scale, "radius": (about.goal_radius,)}
        return SkillNetworks(
            policy=graphs.policy(self.iql.actor, ("z", "obs"), self.config.bins()),
            encoder=graphs.reward_encoder(self.encoder),
            goal=Rule("labels", (), {**near, **group}),
            reward=Rule("encode", (), group),
        )

    def _input(self, obs: Array, z: Array) -> jax.Array:
        """What the policy's networks see of raw observations."""
        return _join(z, self.config.bins()(self.normalizer(obs)))


def _join(w: Array, obs: Array) -> jax.Array:
    return jnp.concatenate([w, obs], axis=-1)
