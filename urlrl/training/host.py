"""Loop (a): host simulators, host replay, and one compiled call for all the updates of an epoch.

An epoch collects `rollout_steps` steps in each environment, then makes `updates` gradient steps. All randomness comes
from (seed, epoch, step), all state is in `Host.state()`: that is why a run that was killed continues bit for bit.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.acting import Flat, act, begin, nothing_yet, planned, recalled, remembered
from urlrl.config import PretrainConfig
from urlrl.data.replay import Replay
from urlrl.data.rows import Rows, agent_fields, blank
from urlrl.errors import UserError
from urlrl.streams import env_seed, stream
from urlrl.training.learn import as_batch, finite_metrics, learn
from urlrl.training.loop import Outcome, Stopwatch, Undone
from urlrl.training.rollouts import check_episodes, first_clock, rollout_coverage
from urlrl.types import HostEnv, Transition


@jax.jit
def _plan(agent, seen, key):
    return agent.plan(seen, key)


class Host:
    """A pretraining run in progress: a loop of one run. `epoch()` advances it; `state()` and `restore()` are its whole
    memory."""

    def __init__(self, config: PretrainConfig, agent: Any, env: HostEnv, use: str = "epochs"):
        """`use` names the streams of randomness that it draws from, of the config's seed."""
        self.config, self.agent, self.env = config, agent, env
        check_episodes(config, env.env_spec)
        fields = agent_fields(agent, env.env_spec)
        self.replay = Replay(config.ring_size, fields, config.num_envs, config.replay_parts)
        self.key = stream(config.seed, use)
        self.epochs, self.updates = 0, 0
        self.obs, _ = env.reset(seed=env_seed(config.seed, use))
        self.ended = np.ones(config.num_envs, bool)  # The first epoch begins an episode in every lane.
        self.blank = blank(fields, agent.config.batch, agent.config.batch.size)  # what is seen before the first row
        plan = planned(agent, self.blank)
        self.plans, self.carry = bool(jax.tree.leaves(plan)), nothing_yet(agent, config.num_envs, plan)
        self.watch = Stopwatch("env", "learner", "host")

    @property
    def step(self) -> int:
        """Environment steps so far."""
        return self.replay.total

    @property
    def runs(self) -> list["Host"]:
        return [self]

    def epoch(self) -> list[Outcome]:
        """Collect, then learn; returns metrics, or why they are not finite. Raises Undone where the environment or the
        agent's acting fails."""
        with self.watch("host"):
            return [self._epoch()]

    def _epoch(self) -> Outcome:
        keys = jax.random.split(jax.random.fold_in(self.key, self.epochs), 5)
        act_key, begin_key, seen_key, sample_key, update_key = keys
        before = self._between()
        try:
            rows, given, positions = self._collect(act_key, begin_key, self._plan(seen_key))
        except Exception as error:
            self._go_back(before)
            raise Undone from error
        self.replay.add(
            {name: column.reshape(self.config.epoch_steps, *column.shape[2:]) for name, column in rows.items()}
        )
        self.epochs += 1
        coverage = rollout_coverage(positions)
        if len(self.replay) < self.config.learning_starts or not self.config.updates:
            return coverage
        if self.config.learns_from_rollouts:
            batches = as_batch(rows, given, self.agent.config.batch)
        else:
            batches = self.replay.sample(sample_key, self.config.updates, self.agent.config.batch)
        metrics = self._learn(batches, update_key)
        return metrics if isinstance(metrics, UserError) else coverage | metrics

    def state(self) -> dict[str, Any]:
        """Everything but the replay's rows, in two parts: the agent, and what else continues the loop."""
        return {"agent": self.agent, "loop": self._between()}

    def _between(self) -> dict[str, Any]:
        """What continues collecting from between two epochs."""
        return {
            "carry": remembered(self.carry),
            "obs": self.obs,
            "ended": self.ended,
            "env": self.env.get_state(),
            "epochs": np.int64(self.epochs),
        }

    def _go_back(self, loop: dict[str, Any]) -> None:
        """The reverse of `_between`."""
        self.carry = recalled(jax.tree.map(jnp.asarray, loop["carry"]), self.carry)
        self.obs, self.ended = loop["obs"], np.array(loop["ended"])
        self.env.set_state(loop["env"])
        self.epochs = int(loop["epochs"])

    def restore(self, state: dict[str, Any], total: int, rows: Rows) -> None:
        """Continue from `state()` of a run that had seen `total` transitions, of which `rows` are the last. Where the
        environment cannot save its state, new episodes begin."""
        self.agent = jax.tree.map(jnp.asarray, state["agent"])
        self._go_back(state["loop"])
        self.replay.restore(total, rows)
        if not self.env.env_spec.exact_resume:
            self.ended[:] = True
            self.replay.cut()

    def _collect(self, act_key: jax.Array, begin_key: jax.Array, plan: Any) -> tuple[Rows, Rows, np.ndarray]:
        """The next `rollout_steps` steps of every lane: rows (steps, lanes, ...), columns of the same that only
        `update` is given, and positions (steps * lanes, p)."""
        steps, n = self.config.rollout_steps, self.config.num_envs
        rows = {k: np.empty((steps, n, *shape), dtype) for k, (shape, dtype) in self.replay.fields.items()}
        positions = np.empty((steps, n, len(self.env.env_spec.position)))
        flat = Flat(self.agent)
        given: Rows = {k: np.empty((steps, *x.shape), x.dtype) for k, x in (self.carry.given or {}).items()}
        for t in range(steps):
            if self.ended.any():
                options = {"reset_mask": self.ended}
                if self.epochs == 0 and t == 0:
                    options["clock"] = first_clock(self.config, self.env.env_spec)
                self.obs, _ = self.env.reset(options=options)
                self.carry = begin(flat, self.carry, self.ended, begin_key, np.int32(t), plan)
            action, self.carry = act(flat, self.obs.astype(np.float32), self.carry, act_key, np.int32(t))
            action = np.asarray(action)
            row: dict[str, Any] = {"obs": self.obs, "action": action, **self.carry.stored}
            if "physics" in rows:
                row["physics"] = self.env.physics()
            with self.watch("env"):
                self.obs, row["reward"], row["terminated"], row["truncated"], _ = self.env.step(action)
            row["next_obs"] = self.obs
            if "physics" in rows:
                row["next_physics"] = self.env.physics()
            for name, value in row.items():
                rows[name][t] = value
            for name in given:
                given[name][t] = self.carry.given[name]
            positions[t] = self.env.position()
            self.ended = row["terminated"] | row["truncated"]
        return rows, given, positions.reshape(steps * n, -1)

    def _learn(self, batches: Transition, update_key: jax.Array) -> Outcome:
        with self.watch("learner"):
            self.agent, metrics, finite = learn(self.agent, batches, update_key)
            self.updates += self.config.updates
            return finite_metrics(metrics, finite, self.step)

    def _plan(self, key: jax.Array) -> Any:
        """What `Agent.begin` may pick from in this epoch, made of one batch of the replay, or of zeros while that is
        empty. Where the agent plans nothing, nothing is drawn."""
        seen = self.blank
        if self.plans and len(self.replay):
            seen = jax.tree.map(lambda x: x[0], self.replay.sample(key, 1, self.agent.config.batch))
        return _plan(self.agent, seen, jax.random.fold_in(key, 1))
