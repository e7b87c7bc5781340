"""Environment steps per second: ours, Gymnasium's synchronous vector environment, and MuJoCo's C without Python.

All three make the same simulation: same models, same start states, same actions, so that contacts cost each the same;
`final_state_difference` in the result says that it was so. Resets are not timed. Ours and Gymnasium's run in closed
loop (an observation comes back after each control step); raw C, the ceiling, runs the whole sequence in one call of
`mujoco.rollout`, with as many threads as there are usable cores.
"""

from typing import Any

import gymnasium
import mujoco.rollout
import numpy as np
from benchmark_common import Contender, interleave, load_average, load_of, show, spread
from rich.table import Table

from urlrl.envs import make_env
from urlrl.envs.locomotion import FRAME_SKIP
from urlrl.envs.pool import silenced
from urlrl.runtime import usable_cores

SEED = 0
# Gymnasium's equal: the same observation, no contact forces in it, no early end.
GYMNASIUM: dict[str, dict[str, Any]] = {
    "ant": {"id": "Ant-v5", "include_cfrc_ext_in_observation": False, "terminate_when_unhealthy": False},
    "half_cheetah": {"id": "HalfCheetah-v5"},
}


class Ours:
    def __init__(self, name: str, num_envs: int):
        self.env = make_env(name, num_envs)
        self.start, _ = self.env.reset(seed=SEED)  # (n, qpos + qvel): these observations are the whole state

    def prepare(self) -> None:
        self.env.reset(seed=SEED)

    def run(self, actions: np.ndarray) -> None:
        for action in actions:
            self.final = self.env.step(action)[0]


class Sync:
    def __init__(self, name: str, num_envs: int, start: np.ndarray):
        with silenced("'settotalmass' is deprecated"):
            self.env: Any = gymnasium.make_vec(
                num_envs=num_envs,
                vectorization_mode="sync",
                exclude_current_positions_from_observation=False,
                **GYMNASIUM[name],
            )
        self.start = start

    def prepare(self) -> None:
        self.env.reset(seed=SEED)
        for single, state in zip(self.env.envs, self.start):
            single.unwrapped.set_state(*np.split(state, [single.unwrapped.model.nq]))

    def run(self, actions: np.ndarray) -> None:
        for action in actions:
            self.final = self.env.step(action)[0]


class RawC:
    """`actions` (steps, n, act), each held for a control step; results go to memory that was touched before."""

    def __init__(self, model: mujoco.MjModel, start: np.ndarray, actions: np.ndarray):
        self.model = model
        self.threads = usable_cores()
        self.pool = mujoco.rollout.Rollout(nthread=self.threads)
        self.data = [mujoco.MjData(model) for _ in range(self.threads)]
        self.start = np.concatenate([np.zeros((len(start), 1)), start], axis=1)  # Time comes first.
        self.control = np.repeat(actions.swapaxes(0, 1), FRAME_SKIP, axis=1).astype(np.float64)
        self.states = np.zeros((*self.control.shape[:2], self.start.shape[1]))

    def run(self) -> None:
        self.pool.rollout(self.model, self.data, self.start, self.control, state=self.states)

    @property
    def final(self) -> np.ndarray:
        return self.states[:, -1, 1:]


def compare(name: str, num_envs: int, steps: int, repeats: int, seconds: float) -> dict[str, Any]:
    """One row of the result: `num_envs` copies of environment `name`, `steps` control steps of each per repeat."""
    ours = Ours(name, num_envs)
    shape = (steps, num_envs, ours.env.env_spec.action_dim)
    actions = np.random.default_rng(SEED).uniform(-1, 1, shape).astype(np.float32)
    sync, raw = Sync(name, num_envs, ours.start), RawC(ours.env.model, ours.start, actions)
    contenders = {
        "ours": Contender(lambda: ours.run(actions), ours.prepare),
        "gymnasium_sync": Contender(lambda: sync.run(actions), sync.prepare),
        "raw_c": Contender(raw.run),
    }
    load = load_average()
    rates = {who: steps * num_envs / times for who, times in interleave(contenders, repeats, seconds).items()}
    row = {
        "env": name, "num_envs": num_envs, "steps": steps, "seed": SEED, "threads": raw.threads,
        "load_average": [load, load_average()],
        **{who: spread(rate, "env steps/s") for who, rate in rates.items()},
        "ours_over_raw_c": spread(rates["ours"] / rates["raw_c"], "ratio, by round"),
        "ours_over_gymnasium_sync": spread(rates["ours"] / rates["gymnasium_sync"], "ratio, by round"),
        "final_state_difference": {
            "unit": "largest absolute difference from ours, m, rad and their rates",
            "gymnasium_sync": float(np.abs(sync.final - ours.final).max()),
            "raw_c": float(np.abs(raw.final - ours.final).max()),
        },
    }  # fmt: skip
    ours.env.close()
    sync.env.close()
    raw.pool.close()
    return row


def measure(num_envs: tuple[int, ...], steps: int, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each environment and number of copies; see `benchmark_common.interleave` for repeats and seconds."""
    return [compare(name, n, steps, repeats, seconds) for name in GYMNASIUM for n in num_envs]


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table(
        "environment", "copies", "raw C (ceiling)", "ours", "Gymnasium sync", "ours / raw C", "ours / sync", "load",
        title="Environment steps per second, median (quartiles)",
    )  # fmt: skip
    for row in rows:
        rates = [show(row[who], 0) for who in ("raw_c", "ours", "gymnasium_sync")]
        ratios = [show(row[f"ours_over_{who}"]) for who in ("raw_c", "gymnasium_sync")]
        out.add_row(row["env"], str(row["num_envs"]), *rates, *ratios, load_of(row))
    return out
