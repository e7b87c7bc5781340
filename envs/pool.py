"""Many MuJoCo simulations of one model, stepped by native threads.

Each lane owns an `MjData`, so that solver warm starts, contact forces and everything derived are those of a simulation
run alone: results do not depend on the number of lanes or threads, and equal Gymnasium's and dm_control's bit for bit.
`mj_step` releases the interpreter lock. docs/benchmarks.md compares this loop with `mujoco.rollout`, which in open loop
is the ceiling, and which in closed loop was no faster and does not hand back the solver's warm start.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import mujoco
import numpy as np

from urlrl.errors import UserError
from urlrl.runtime import usable_cores

STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@contextmanager
def silenced(notice: str) -> Iterator[None]:
    """Drop MuJoCo's warnings that contain `notice`; its others become Python warnings once the block is done."""
    heard: list[str] = []
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(heard.append)  # Not warnings.warn: an exception inside the callback ends the process.
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
    for text in heard:
        if notice not in text:
            warnings.warn(text, stacklevel=3)


class Threads:
    """Split `n` lanes over threads and run a function on each share; the caller's thread takes the first."""

    def __init__(self, n: int, threads: int | None = None):
        threads = max(1, min(threads or usable_cores(), n // 2))  # Under two lanes a thread costs more than it brings.
        bounds = [n * i // threads for i in range(threads + 1)]
        self.shares = [range(a, b) for a, b in zip(bounds, bounds[1:])]
        self.pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="urlrl-env") if threads > 1 else None

    def run(self, work: Callable[[range], None]) -> None:
        """Call `work(share)` for every share; returns when all are done, and raises what any of them raised."""
        futures = [self.pool.submit(work, share) for share in self.shares[1:]] if self.pool else []
        try:
            work(self.shares[0])
        finally:
            for future in futures:
                future.result()

    def close(self) -> None:
        if self.pool:
            self.pool.shutdown()


class MujocoPool:
    """`n` simulations of one model. `qpos` (n, nq) and `qvel` (n, nv) mirror the state after each step."""

    def __init__(self, model: mujoco.MjModel, n: int, threads: int | None = None):
        self.model = model
        self.data = [mujoco.MjData(model) for _ in range(n)]
        self.qpos = np.empty((n, model.nq))
        self.qvel = np.empty((n, model.nv))
        self.lanes = Threads(n, threads)
        # Views into MjData; looking an attribute up through the bindings costs more than the copy.
        self._views = [(d, d.ctrl, d.qpos, d.qvel) for d in self.data]
        self._mirror(range(n))

    def step(self, ctrl: np.ndarray, num_steps: int) -> None:
        """Hold ctrl (n, nu), in actuator units, for `num_steps` simulation steps."""
        model, views, step = self.model, self._views, mujoco.mj_step

        def work(share: range) -> None:
            for i in share:
                data, lane_ctrl, qpos, qvel = views[i]
                lane_ctrl[:] = ctrl[i]
                start = data.time
                step(model, data, num_steps)
                if data.time <= start:  # MuJoCo resets a simulation that blew up, and its clock with it.
                    raise UserError(
                        f"The simulation of lane {i} became unstable {start:.2f} s into its episode: expected finite "
                        f"accelerations."
                    )
                self.qpos[i] = qpos
                self.qvel[i] = qvel

        self.lanes.run(work)

    def reset(self, lane: int, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put one lane into a fresh state; everything but position and velocity is the model's default."""
        data = self.data[lane]
        mujoco.mj_resetData(self.model, data)
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_forward(self.model, data)
        self._mirror([lane])

    def get_state(self) -> np.ndarray:
        """See `saved_states`."""
        return saved_states([(self.model, data) for data in self.data])

    def set_state(self, state: np.ndarray) -> None:
        for data, row in zip(self.data, state):
            mujoco.mj_setState(self.model, data, row, STATE)
        self._mirror(range(len(self.data)))

    def close(self) -> None:
        self.lanes.close()

    def _mirror(self, lanes: Sequence[int]) -> None:
        for i in lanes:
            self.qpos[i], self.qvel[i] = self.data[i].qpos, self.data[i].qvel


def saved_states(simulations: Sequence[tuple[mujoco.MjModel, mujoco.MjData]]) -> np.ndarray:
    """(n, state): all that the continuation of each depends on, `mjSTATE_INTEGRATION`."""
    states = np.empty((len(simulations), mujoco.mj_stateSize(simulations[0][0], STATE)))
    for (model, data), row in zip(simulations, states):
        mujoco.mj_getState(model, data, row, STATE)
    return states


def set_state(model: mujoco.MjModel, data: mujoco.MjData, physics: np.ndarray, control: np.ndarray) -> None:
    """Put a simulation into a state (qpos, qvel, act) under a control, and compute all that follows from it."""
    data.qpos[:], data.qvel[:], data.act[:] = np.split(physics, np.cumsum([model.nq, model.nv]))
    data.ctrl[:] = control
    mujoco.mj_forward(model, data)
