"""Loop (b): a fixed dataset, and one compiled call for all the updates of an epoch.

An epoch draws `updates` batches and makes as many gradient steps. All randomness comes from (seed, epoch), all state is
in `Offline.state()`: that is why a run that was killed continues bit for bit.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.config import OfflineConfig
from urlrl.data.dataset import Dataset
from urlrl.streams import stream
from urlrl.training.learn import finite_metrics, learn
from urlrl.training.loop import Outcome, Stopwatch


class Offline:
    """A run on a dataset in progress: a loop of one run. `epoch()` advances it; `state()` and `restore()` are its whole
    memory."""

    def __init__(self, config: OfflineConfig, agent: Any, dataset: Dataset):
        self.config, self.agent, self.dataset = config, agent, dataset
        self.key = stream(config.seed, "epochs")
        self.epochs, self.updates = 0, 0
        self.watch = Stopwatch("learner", "host")

    @property
    def step(self) -> int:
        """Gradient steps so far."""
        return self.epochs * self.config.updates

    @property
    def runs(self) -> list["Offline"]:
        return [self]

    def epoch(self) -> list[Outcome]:
        """Draw and learn; returns metrics, or why they are not finite."""
        sample_key, update_key = jax.random.split(jax.random.fold_in(self.key, self.epochs))
        with self.watch("host"):
            batches = self.dataset.sample(sample_key, self.config.updates, self.agent.config.batch)
        with self.watch("learner"):
            self.agent, metrics, finite = learn(self.agent, batches, update_key)
            self.epochs += 1
            self.updates += self.config.updates
            return [finite_metrics(metrics, finite, self.step)]

    def state(self) -> dict[str, Any]:
        """All that continues the run, in two parts: the agent, and the loop."""
        return {"agent": self.agent, "loop": {"epochs": np.int64(self.epochs)}}

    def restore(self, state: dict[str, Any], step: int, rows: None) -> None:
        """Continue from `state()`."""
        del step, rows
        self.agent = jax.tree.map(jnp.asarray, state["agent"])
        self.epochs = int(state["loop"]["epochs"])
