"""Loop (b) for runs that differ in their seed: one compiled, donated call per epoch for all of them.

The dataset's columns lie on each device once, and every seed gathers its own batches from them there. An epoch is that
of `Offline`, by the same keys; seeds are split over the devices, between which nothing is exchanged.

The fields that an agent names in `shared`, such as a counter of updates, are equal in all seeds: they are not stacked.
So what an agent decides by them, as FRE its phase, is decided once for all seeds, and not computed both ways.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from urlrl.config import OfflineConfig
from urlrl.data.dataset import Columns, Dataset, Episodes, draw_rows
from urlrl.data.draw import gather
from urlrl.streams import stream
from urlrl.training.device import seed_mesh
from urlrl.training.learn import learn, seed_metrics
from urlrl.training.loop import Outcome, Stopwatch
from urlrl.training.memory import tree_bytes
from urlrl.training.stacked import over_axes, pick_agent, seed_axes, stack_agents
from urlrl.types import BatchSpec, Transition


def sample(columns: Columns, key: jax.Array, num_batches: int, spec: BatchSpec) -> Transition:
    """The batches of `Dataset.sample`, drawn and gathered in a compiled program."""
    return gather(columns, draw_rows(key, (num_batches, spec.size), spec, Episodes(columns.starts)), spec)


class OfflineSeeds:
    """Runs on a dataset in progress. `epoch()` advances all of them; `runs` are their memories, one by one."""

    def __init__(self, config: OfflineConfig, agents: dict[int, Any], dataset: Dataset, devices: Sequence[jax.Device]):
        """`agents` by seed, of one config."""
        self.config = config
        self.data = dataset.to_draw  # mapped, until the first epoch
        self.mesh = seed_mesh(len(agents), devices)
        self.axes = seed_axes(next(iter(agents.values())))
        self.program = over_seeds(config, self.mesh, self.axes)
        self.agents: Any = None  # stacked over seeds; None before the first epoch
        self.keys = jnp.stack([stream(seed, "epochs") for seed in agents])
        self.epochs, self.updates = 0, 0
        self.watch = Stopwatch("device", "host")
        self.runs = [OfflineRun(self, lane, seed, agent) for lane, (seed, agent) in enumerate(agents.items())]

    @property
    def step(self) -> int:
        """Gradient steps of each seed so far."""
        return self.epochs * self.config.updates

    def epoch(self) -> list[Outcome]:
        """Draw and learn; by seed its metrics, or why they are not finite."""
        with self.watch("host"):
            if self.agents is None:
                self._place()
            with self.watch("device"):
                self.agents, *made = self.program(self.data, np.int32(self.epochs), self.agents, self.keys)
                metrics, finite = jax.device_get(made)
            self.epochs += 1
            self.updates += self.config.updates
            return seed_metrics(metrics, finite, self.step)

    def sizes(self) -> tuple[int, int]:
        """Bytes of the data, and of the batches that one seed draws in an epoch."""
        drawing = partial(sample, num_batches=self.config.updates, spec=self.config.agent.batch)
        batches = jax.eval_shape(drawing, self.data, jax.random.key(0))
        return tree_bytes(self.data), tree_bytes(batches)

    def _place(self) -> None:
        """Each seed, as it is now, onto its device; the data onto every device."""
        split, whole = NamedSharding(self.mesh, PartitionSpec("seed")), NamedSharding(self.mesh, PartitionSpec())

        agents = stack_agents(self.axes, [jax.device_get(run.begun) for run in self.runs])
        self.agents = over_axes(lambda axis, x: jax.device_put(x, whole if axis is None else split), self.axes, agents)
        self.keys = jax.device_put(self.keys, split)
        self.data = jax.device_put(self.data, whole)


class OfflineRun:
    """One of the runs, as a `Loop` has a memory: a checkpoint of it is one of `Offline`."""

    def __init__(self, seeds: OfflineSeeds, lane: int, seed: int, agent: Any):
        self.seeds, self.lane = seeds, lane
        self.config = replace(seeds.config, seed=seed)
        self.begun = agent  # where this process found it

    @property
    def step(self) -> int:
        return self.seeds.step

    @property
    def agent(self) -> Any:
        stacked = self.seeds.agents
        return self.begun if stacked is None else pick_agent(self.seeds.axes, stacked, self.lane)

    def state(self) -> dict[str, Any]:
        """All that continues the run, in two parts: the agent, and the loop."""
        return {"agent": self.agent, "loop": {"epochs": np.int64(self.seeds.epochs)}}

    def restore(self, state: dict[str, Any], step: int, rows: None) -> None:
        """Continue from `state()`; the other runs must be brought to the same step."""
        del step, rows
        self.begun, self.seeds.epochs = state["agent"], int(state["loop"]["epochs"])


def advance(
    config: OfflineConfig, data: Columns, epochs: jax.Array, agent: Any, key: jax.Array
) -> tuple[Any, dict[str, jax.Array], jax.Array]:
    """One epoch of one seed, which is number `epochs`: as `learn` returns it."""
    keys = jax.random.split(jax.random.fold_in(key, epochs))
    sample_key, update_key = keys
    return learn(agent, sample(data, sample_key, config.updates, agent.config.batch), update_key)


def over_seeds(config: OfflineConfig, mesh: Mesh, axes: Any) -> Any:
    """`advance`, compiled: agents stacked along `axes` and keys over seeds, split over the devices of `mesh`, each of
    which holds all of the data. The agents it is given are used up."""
    each = jax.vmap(partial(advance, config), in_axes=(None, None, axes, 0), out_axes=(axes, 0, 0))
    seeds, whole = PartitionSpec("seed"), PartitionSpec()
    agents = over_axes(lambda axis: whole if axis is None else seeds, axes)
    split = jax.shard_map(
        each, mesh=mesh, in_specs=(whole, whole, agents, seeds), out_specs=(agents, seeds, seeds), check_vma=False
    )
    return jax.jit(split, donate_argnums=2)
