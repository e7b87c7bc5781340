"""Loop (b): a fixed dataset, and one compiled call for all the updates of an epoch.

An epoch draws `updates` batches and makes as many gradient steps. All randomness comes from (seed, epoch), all state is
in `Offline.state()`: that is why a run that was killed continues bit for bit.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.config import OfflineConfig
from urlrl.data.dataset import Dataset
from urlrl.streams import stream
from urlrl.training.loop import finite_metrics, learn


class Offline:
    """A run on a dataset in progress. `epoch()` advances it; `state()` and `restore()` are its whole memory."""

    def __init__(self, config: OfflineConfig, agent: Any, dataset: Dataset):
        self.config, self.agent, self.dataset = config, agent, dataset
        self.key = stream(config.seed, "epochs")
        self.epochs, self.updates = 0, 0
        self.seconds = {"learner": 0.0, "host": 0.0}  # spent since the last `timing()`

    @property
    def step(self) -> int:
        """Gradient steps so far."""
        return self.epochs * self.config.updates

    def epoch(self) -> dict[str, float]:
        """Draw and learn; returns metrics of finite values.

        Raises:
            TrainingDiverged: a metric or a parameter is not finite.
        """
        start = time.perf_counter()
        sample_key, update_key = jax.random.split(jax.random.fold_in(self.key, self.epochs))
        batches = self.dataset.sample(sample_key, self.config.updates, self.agent.config.batch)
        sampled = time.perf_counter()
        self.agent, metrics, finite = learn(self.agent, batches, update_key)
        self.epochs += 1
        self.updates += self.config.updates
        values = finite_metrics(metrics, finite, self.step)
        self.seconds["host"] += sampled - start
        self.seconds["learner"] += time.perf_counter() - sampled
        return values

    def timing(self) -> dict[str, float]:
        """Seconds spent drawing batches and learning since the last call."""
        spent, self.seconds = self.seconds, dict.fromkeys(self.seconds, 0.0)
        return spent

    def state(self) -> dict[str, Any]:
        """All that continues the run, in two parts: the agent, and the loop."""
        return {"agent": self.agent, "loop": {"epochs": np.int64(self.epochs)}}

    def restore(self, state: dict[str, Any], step: int, rows: None) -> None:
        """Continue from `state()`."""
        del step, rows
        self.agent = jax.tree.map(jnp.asarray, state["agent"])
        self.epochs = int(state["loop"]["epochs"])
