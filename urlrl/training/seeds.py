"""Runs that differ in their seed and advance together on the device: what the host sees of them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.acting import recalled, remembered
from urlrl.config import PretrainConfig
from urlrl.data.device_replay import in_order, rings
from urlrl.data.rows import Rows, agent_fields, blank
from urlrl.errors import TrainingDiverged, UserError, not_finite
from urlrl.streams import env_seed, stream
from urlrl.training.device import FLOWS, Broken, Keys, RunState, device_mesh, first_lanes, over_seeds, shardings
from urlrl.training.learn import seed_metrics
from urlrl.training.loop import Outcome, Stopwatch
from urlrl.training.rollouts import check_episodes, rollout_coverage
from urlrl.training.stacked import pick_agent, seed_axes, stack_agents
from urlrl.types import DeviceEnv


class Seeds:
    """Pretraining runs in progress. `epoch()` advances all of them; `runs` are their memories, one by one."""

    def __init__(
        self,
        config: PretrainConfig,
        agents: dict[int, Any],
        env: DeviceEnv,
        devices: Sequence[jax.Device],
        use: str = "epochs",
    ):
        """`agents` by seed, of one config; `use` names the streams of randomness that each draws from, of its seed."""
        self.config, self.env, self.use = config, env, use
        self.per_epoch = config.epoch_steps
        # A ring that never fills is as long as the run.
        self.capacity = min(config.ring_size, -(-config.steps // self.per_epoch) * self.per_epoch)
        agent = next(iter(agents.values()))
        check_episodes(config, env.env_spec)
        self.fields = agent_fields(agent, env.env_spec)
        self.mesh, self.axes = device_mesh(len(agents), config, devices), seed_axes(agent)
        self.programs = {learns: over_seeds(env, config, learns, self.mesh, self.axes) for learns in (False, True)}
        self.state: RunState | None = None  # stacked over seeds; None before the first epoch
        self.epochs, self.updates = 0, 0
        self.watch = Stopwatch("device", "host")
        self.runs = [SeedRun(self, lane, seed, agent) for lane, (seed, agent) in enumerate(agents.items())]

    @property
    def step(self) -> int:
        """Environment steps of each seed so far."""
        return self.epochs * self.per_epoch

    def epoch(self) -> list[Outcome]:
        """Collect, then learn; by seed its metrics, or why they are not finite."""
        with self.watch("host"):
            state = self._place() if self.state is None else self.state
            learning = self.step + self.per_epoch >= self.config.learning_starts and self.config.updates > 0
            with self.watch("device"):
                self.state, made = self.programs[learning](state)
                made = jax.device_get(made)
            self.epochs += 1
            self.updates += self.config.updates * learning
            outcomes = seed_metrics(made.metrics, made.finite, self.step)
            for place, metrics in enumerate(outcomes):
                if made.broken.any[place]:
                    outcomes[place] = self._error(Broken(*(values[place] for values in made.broken)))
                elif not isinstance(metrics, UserError):
                    outcomes[place] = rollout_coverage(made.position[place]) | metrics
            return outcomes

    def _error(self, broken: Broken) -> UserError:
        what, lane, step = list(FLOWS.values())[broken.flow], int(broken.lane), int(broken.step)
        if what == "action":
            return TrainingDiverged(
                f"Training diverged at step {self.step}: an action is not finite (lane {lane}, step {step} of its "
                "episode); expected finite numbers."
            )
        return UserError(not_finite(self.config.env, what, lane, step))

    def _place(self) -> RunState:
        """The runs as they are now, stacked, each seed on its devices."""
        layout = shardings(self.mesh, self.config, self.axes)
        keys = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[run.keys for run in self.runs])
        agents, loops = zip(*(jax.device_get((run.memory["agent"], run.memory["loop"])) for run in self.runs))
        loop = jax.tree.map(lambda *leaves: np.stack(leaves), *loops)
        shape = self.config.num_envs, self.config.replay_parts
        put = partial(jax.device_put, device=layout.replay.data)
        replay = rings(self.capacity, self.fields, *shape, self.step, [run.rows for run in self.runs], put)
        for run in self.runs:
            run.rows = None  # They are in the ring.
        state = RunState(stack_agents(self.axes, agents), loop["lanes"], loop["epochs"], keys, replay)
        return jax.device_put(state, layout)


class SeedRun:
    """One of the runs, as a `Loop` has a memory."""

    def __init__(self, seeds: Seeds, lane: int, seed: int, agent: Any):
        self.seeds, self.lane, self.env = seeds, lane, seeds.env
        self.config = replace(seeds.config, seed=seed)
        self.keys = Keys(stream(seed, seeds.use), jax.random.key(np.uint32(env_seed(seed, seeds.use))))
        seen = blank(seeds.fields, agent.config.batch, agent.config.batch.size)
        lanes = first_lanes(seeds.env, agent, self.config.num_envs, seen, self.keys)
        self.memory = {"agent": agent, "loop": {"lanes": lanes, "epochs": np.int32(0)}}  # as it began
        self.rows: Rows | None = None  # what the replay holds then
        self.replay = SeedReplay(seeds, lane)

    @property
    def step(self) -> int:
        return self.seeds.step

    @property
    def agent(self) -> Any:
        return self.state()["agent"]

    def state(self) -> dict[str, Any]:
        """Everything but the replay's rows, in two parts: the agent, and what else continues the loop."""
        if (stacked := self.seeds.state) is None:
            agent, (lanes, epochs) = self.memory["agent"], self.memory["loop"].values()
        else:
            agent = pick_agent(self.seeds.axes, stacked.agent, self.lane)
            lanes, epochs = jax.device_get(_pick((stacked.lanes, stacked.epochs), self.lane))
        return {"agent": agent, "loop": {"lanes": lanes._replace(carry=remembered(lanes.carry)), "epochs": epochs}}

    def restore(self, state: dict[str, Any], total: int, rows: Rows) -> None:
        """Continue from `state()` of a run that had seen `total` transitions, of which `rows` are the last; the other
        runs must be brought to the same."""
        lanes, like = state["loop"]["lanes"], self.memory["loop"]["lanes"].carry
        loop = {"lanes": lanes._replace(carry=recalled(lanes.carry, like)), "epochs": state["loop"]["epochs"]}
        self.memory, self.rows = {"agent": state["agent"], "loop": loop}, rows
        self.seeds.epochs = total // self.seeds.per_epoch


class SeedReplay:
    """The replay of one of the runs, as a `Recorder` reads it."""

    def __init__(self, seeds: Seeds, lane: int):
        self.seeds, self.lane = seeds, lane
        self.fields, self.capacity = seeds.fields, seeds.capacity

    def __len__(self) -> int:
        return min(self.seeds.step, self.capacity)

    def read(self, begin: int, end: int) -> Rows:
        """The transitions of global indices [begin, end), in order: whole epochs, brought over one by one."""
        assert self.seeds.state is not None
        epochs = []
        for first in range(begin, end, self.seeds.per_epoch):
            parts = self.seeds.config.replay_parts
            slots = np.arange(first, first + self.seeds.per_epoch, parts) % self.capacity // parts
            epochs.append(jax.device_get(_read(self.seeds.state.replay.data, self.lane, slots.astype(np.int32))))
        width = self.seeds.state.replay.width
        rows = {name: np.concatenate([in_order(epoch[name], width) for epoch in epochs]) for name in self.fields}
        return {name: rows[name].astype(dtype) for name, (_, dtype) in self.fields.items()}


@jax.jit
def _pick(stacked: Any, lane: int) -> Any:
    return jax.tree.map(lambda x: x[lane], stacked)


@jax.jit
def _read(data: dict[str, jax.Array], lane: int, slots: jax.Array) -> dict[str, jax.Array]:
    return {name: column[lane][:, slots] for name, column in data.items()}
