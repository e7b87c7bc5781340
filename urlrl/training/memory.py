"""How much memory a run will take, how much there is, and which options matter where it does not fit."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax

from urlrl.config import OfflineConfig, PretrainConfig, RunConfig, flatten, to_json
from urlrl.data.device_replay import device_fields
from urlrl.data.rows import Fields, example_transition, transition_fields, z_field
from urlrl.errors import UserError, shown
from urlrl.types import EnvSpec

MIB = 2**20


class Needs(NamedTuple):
    """Bytes that the run of one seed takes at least, and the options that each part follows from."""

    replay: int  # all that the replay can hold; 0 for a run on a dataset
    batches: int  # of an epoch
    agent: int
    options: dict[str, tuple[str, ...]]  # by part

    def __str__(self) -> str:
        parts = f"{self.batches / MIB:,.0f} of batches and {self.agent / MIB:,.0f} of agent"
        return f"{self.replay / MIB:,.0f} MiB of replay, {parts}"

    def advice(self) -> str:
        """What to try: the options of the largest part."""
        largest = max(self.options, key=lambda part: getattr(self, part))
        return f"try a smaller {' or '.join(self.options[largest])}"


def needs(config: RunConfig, spec: EnvSpec, agent: Any) -> Needs:
    """What a run on the host takes; `agent` may be shapes."""
    z_dim, batch = config.agent.z.dim, config.agent.batch
    rows = config.ring_size if isinstance(config, PretrainConfig) else 0
    replay = _row_bytes(transition_fields(spec, z_field(z_dim))) * rows
    drawn = tree_bytes(example_transition(spec, z_dim)) + 4 * spec.obs_dim * ((batch.goals is not None) + batch.futures)
    wide = ("agent.z.dim",) if z_dim > 10 * (2 * spec.obs_dim + spec.action_dim) else ()  # Rows are mostly skill.
    options = {
        "replay": (*wide, "replay_capacity"),
        "batches": (*wide, "agent.batch.size", "rollout_steps" if rows else "updates"),
        "agent": (*wide, _widest(config.agent)),
    }
    return Needs(replay, drawn * config.updates * batch.size, tree_bytes(agent), options)


def check_host_memory(config: RunConfig, needed: Needs, device: jax.Device) -> None:
    """Refuse a run on the host that cannot fit: its replay, as far as the run fills it, and its batches into the
    machine's memory, batches and agent into that of `device`.

    Raises:
        UserError: it gives the numbers.
    """
    if isinstance(config, PretrainConfig):
        needed = needed._replace(replay=needed.replay * min(config.steps, config.ring_size) // config.ring_size)
    machine, learner = needed.replay + needed.batches, needed.batches + needed.agent
    if device.platform == "cpu":
        _refuse("The run needs", machine + needed.agent, str(needed), available([device]), needed.advice())
    else:
        _refuse("The run needs", machine, str(needed), _machine(), needed._replace(agent=0).advice())
        _refuse("The run needs", learner, str(needed), available([device]), needed._replace(replay=0).advice())


def check_agent_memory(config: RunConfig, agent: Any, device: jax.Device) -> None:
    """Refuse an agent, of these shapes, that cannot fit into the memory of `device`."""
    size, free, advice = tree_bytes(agent), available([device]), f"try a smaller {_widest(config.agent)}"
    _refuse(f"Agent '{config.agent_name}' needs", size, "its networks alone", free, advice)


def _widest(agent: Any) -> str:
    """The option of an agent's config, or of a learner's in it, that says the width of the widest networks."""
    options = flatten(to_json(agent), "agent.")
    # None: a learner's networks are as wide as the agent says.
    widths = {name: value or 0 for name, value in options.items() if name.endswith("width")}
    return max(widths, key=widths.__getitem__, default="agent")


def check_memory(
    config: PretrainConfig, needed: Needs, fields: Fields, capacity: int, seeds: int, devices: Sequence[Any]
) -> None:
    """Refuse what cannot fit: rings of `capacity`, the batches of an epoch and the agents of the seeds, on `devices`.

    Raises:
        UserError: it gives the numbers.
    """
    row = _row_bytes(device_fields(fields))
    copies = max(1, len(devices) // seeds)  # of an agent, on the devices that share a seed's environments
    batches = row * config.updates * config.agent.batch.size
    needed = needed._replace(replay=row * capacity, batches=batches, agent=copies * needed.agent)
    total = seeds * (needed.replay + needed.batches + needed.agent)
    _refuse(f"{seeds} seeds need", total, f"{needed} each", available(devices), f"{needed.advice()} or fewer seeds")


def check_data_memory(
    config: OfflineConfig, needed: Needs, data: int, batches: int, seeds: int, devices: Sequence[Any]
) -> None:
    """Refuse what cannot fit: `data` bytes of the dataset on each of `devices`, and for each seed an agent and the
    `batches` bytes of an epoch.

    Raises:
        UserError: it gives the numbers.
    """
    needed = needed._replace(batches=batches)
    detail = f"{data / MIB:,.0f} MiB of data on each device, {batches / MIB:,.0f} of batches and "
    _refuse(
        f"{seeds} seeds on {config.data} need",
        len(devices) * data + seeds * (batches + needed.agent),
        f"{detail}{needed.agent / MIB:,.0f} of agent each",
        available(devices),
        f"{needed.advice()}, fewer seeds, or --seed N, which leaves the data on the disk",
    )


@contextmanager
def explained(needed: Needs) -> Iterator[None]:
    """What runs out of memory inside becomes a UserError with the numbers and the options that matter."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if (said := out_of_memory(error)) is None:
            raise
        raise UserError(f"{said}; {needed.advice()}.") from error


def out_of_memory(error: BaseException) -> str | None:
    """The beginning of a sentence on an error of Python, NumPy or XLA that says that memory ran out; else None."""
    words = str(error)
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in words and "Out of memory" not in words:
        return None
    free = available(jax.local_devices()[:1])
    left = "" if free is None else f" ({free / MIB:,.0f} MiB are free)"
    if asked := re.search(r"allocat\w+ (\d+) ?b", words):
        return f"Not enough memory: {int(asked[1]) / MIB:,.0f} MiB were asked for at once{left}"
    detail = f": {shown(words.splitlines()[0].rstrip('.'), 200)}" if words else ""  # Python's own says nothing.
    return f"Not enough memory{detail}{left}"


def tree_bytes(tree: Any) -> int:
    """Of all leaves, which may be shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _row_bytes(fields: Fields) -> int:
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in fields.values())


def _refuse(what: str, size: int, detail: str, free: int | None, advice: str) -> None:
    if free is not None and size > free:
        raise UserError(
            f"{what} at least {size / MIB:,.0f} MiB ({detail}): expected at most the {free / MIB:,.0f} MiB that are "
            f"free; {advice}."
        )


def available(devices: Sequence[Any]) -> int | None:
    """Bytes that are free on these devices; on CPUs those of the machine. None where nothing says so."""
    if devices[0].platform == "cpu":
        return _machine()
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in each for each in stats):
        return None
    return len(stats) * min(each["bytes_limit"] - each.get("bytes_in_use", 0) for each in stats)


def _machine() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):  # Not Linux.
        return None
