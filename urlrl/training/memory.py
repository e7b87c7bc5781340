"""How much memory runs on the device will take, and how much there is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from urlrl.config import OfflineConfig, PretrainConfig
from urlrl.data.device_replay import device_fields
from urlrl.data.replay import Fields
from urlrl.errors import UserError

MIB = 2**20


def check_memory(config: PretrainConfig, fields: Fields, capacity: int, agents: Sequence[Any], devices: Sequence[Any]):
    """Refuse what cannot fit: rings of `capacity`, the batches of an epoch and the agents of the seeds, on `devices`.

    Raises:
        UserError: it gives the numbers.
    """
    row = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in device_fields(fields).values())
    batches = row * config.updates * config.agent.batch.size
    copies = max(1, len(devices) // len(agents))  # of an agent, on the devices that share a seed's environments
    agent = copies * sum(leaf.nbytes for leaf in jax.tree.leaves(agents[0]))
    needed, free = len(agents) * (row * capacity + batches + agent), available(devices)
    if free is not None and needed > free:
        raise UserError(
            f"{len(agents)} seeds need at least {needed / MIB:,.0f} MiB ({row * capacity / MIB:,.0f} MiB of replay, "
            f"{batches / MIB:,.0f} of batches and {agent / MIB:,.0f} of agent each): expected at most the "
            f"{free / MIB:,.0f} MiB that are free; try a smaller replay_capacity or fewer seeds."
        )


def check_data_memory(
    config: OfflineConfig, data: int, batches: int, agents: Sequence[Any], devices: Sequence[Any]
) -> None:
    """Refuse what cannot fit: `data` bytes of the dataset on each of `devices`, and for each seed an agent and the
    `batches` bytes of an epoch.

    Raises:
        UserError: it gives the numbers.
    """
    agent = sum(leaf.nbytes for leaf in jax.tree.leaves(agents[0]))
    needed, free = len(devices) * data + len(agents) * (batches + agent), available(devices)
    if free is not None and needed > free:
        raise UserError(
            f"{len(agents)} seeds on {config.data} need at least {needed / MIB:,.0f} MiB ({data / MIB:,.0f} MiB of "
            f"data on each device, {batches / MIB:,.0f} of batches and {agent / MIB:,.0f} of agent each): expected at "
            f"most the {free / MIB:,.0f} MiB that are free; try smaller updates, fewer seeds, or --seed N, which "
            f"leaves the data on the disk."
        )


def available(devices: Sequence[Any]) -> int | None:
    """Bytes that are free on these devices; on CPUs those of the machine. None where nothing says so."""
    if devices[0].platform == "cpu":
        return _machine(Path("/proc/meminfo"))
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in each for each in stats):
        return None
    return len(stats) * min(each["bytes_limit"] - each.get("bytes_in_use", 0) for each in stats)


def _machine(meminfo: Path) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):  # Not Linux.
        return None
