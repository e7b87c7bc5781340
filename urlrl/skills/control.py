"""A bundle's policy in a control loop: which skill acts now, and when the policy is asked.

    policy = SkillPolicy.from_pretrained("half_cheetah")
    switcher = SkillSwitcher(policy, "forward", hold=20, slew=0.1)
    loop = TimedLoop(policy, timeout=0.1)
    while True:  # at 100 Hz or more
        ctrl = loop(time.monotonic(), read_sensors(), switcher)  # in actuator units; `switcher.ask(z)` at any time

Beside the runtime this file needs NumPy alone. Neither class starts a thread or sleeps.
"""

import math
from typing import Any

import numpy as np

from urlrl.skills.policy import SkillController, SkillError, SkillPolicy, Toward


class SkillSwitcher:
    """The skill that acts: the one asked for last, but not before the present one was held for long enough, and along
    the shortest way on the sphere where that is wanted. Call it once for each action: obs (obs,) -> z (d,).

    Args:
        start: the first skill, as `SkillPolicy.act` takes it: a vector, a name, an index, or what `prompt` returned.
        hold: actions for which a skill is kept at least.
        slew: of skills on a sphere, radians by which z turns for each action at most; None: it changes at once.
        fallback: the skill for observations at which a prompt fails; None: the SkillError is raised.

    Raises:
        SkillError: a skill that the policy does not know, or slew where skills are on no sphere.
    """

    def __init__(
        self, policy: SkillPolicy, start: Any, *, hold: int = 1, slew: float | None = None, fallback: Any = None
    ):
        kind = policy.config["skill"]["kind"]
        if not hold >= 1:
            raise SkillError(f"hold is {hold}: expected at least 1 action.")
        if slew is not None and (not slew > 0 or kind not in ("sphere", "wide_sphere")):
            raise SkillError(f"slew is {slew} and skills are '{kind}': expected more than 0 radians, on a sphere.")
        self.policy, self.hold, self.slew = policy, hold, slew
        self._fallback = None if fallback is None else policy.skill(fallback)
        self._asked = self._acting = self._known(start)
        self._held, self._z = 0, np.zeros(0, np.float32)

    def ask(self, z: Any) -> None:
        """For a skill; it begins as soon as the present one was held for long enough."""
        self._asked = self._known(z)

    def __call__(self, obs: Any) -> np.ndarray:
        if self._held >= self.hold and not _same(self._asked, self._acting):
            self._acting, self._held = self._asked, 0
        self._held += 1
        try:
            wanted = self._acting.aim(obs) if isinstance(self._acting, Toward) else self._acting
        except SkillError:
            if self._fallback is None:
                raise
            wanted = self._fallback
        self._z = turned_toward(self._z, wanted, self.slew) if self.slew and self._z.size else wanted
        return self._z

    def _known(self, z: Any) -> Any:
        return z if isinstance(z, Toward) else np.array(self.policy.skill(z))  # The caller may reuse its array.


def _same(a: Any, b: Any) -> bool:
    return a is b or (not isinstance(a, Toward) and not isinstance(b, Toward) and np.array_equal(a, b))


def turned_toward(z: np.ndarray, target: np.ndarray, angle: float) -> np.ndarray:
    """z (d,) turned toward the target, of the same length, by at most so many radians; from its opposite, any way."""
    length = float(np.linalg.norm(target))
    a, b = z.astype(np.float64) / length, target.astype(np.float64) / length
    between = math.acos(min(1.0, max(-1.0, float(a @ b))))
    if between <= angle:
        return target
    side = b - (a @ b) * a
    if np.linalg.norm(side) < 1e-6:  # Opposite: any direction at right angles to a will do.
        side = np.eye(len(a))[np.abs(a).argmin()]
        side = side - (a @ side) * a
    side /= np.linalg.norm(side)
    return ((math.cos(angle) * a + math.sin(angle) * side) * length).astype(np.float32)


class TimedLoop:
    """A policy that was trained at one control step, in a loop that runs faster: its action is held in between. Call it
    at each step of the loop, with the time in seconds: -> what the actuators are sent, (act,), in their units.

    A SkillError at the first action is raised. Later, where an observation is refused, `safe` is sent until the next
    action is due; `refused` counts that and `error` says why.

    Args:
        timeout: seconds between two calls after which the loop counts as late: then `safe` is sent, until the next
            action is due. None: never.
        safe: what is sent then, in actuator units; None: the middle of each actuator's range.

    Raises:
        SkillError: the bundle states no control step, or times that run backwards.
    """

    def __init__(self, policy: SkillPolicy | SkillController, *, timeout: float | None = None, safe: Any = None):
        self.step = policy.config["control_dt"]
        if self.step is None:
            raise SkillError("The bundle states no control step: expected one of a policy that was trained at one.")
        if timeout is not None and not timeout > 0:
            raise SkillError(f"timeout is {timeout}: expected more than 0 seconds.")
        middle = policy.scale(np.zeros(policy.config["action"]["size"]))
        self.policy, self.timeout = policy, timeout
        self.safe = np.array(middle if safe is None else safe, float)
        if self.safe.shape != middle.shape or not np.isfinite(self.safe).all():
            raise SkillError(f"safe is {safe}: expected {middle.size} finite numbers.")
        self.late = self.refused = 0  # how often the loop was late, and an observation was refused
        self.error = ""
        self._last = self._due = -math.inf
        self._ctrl = self.safe

    def __call__(self, now: float, obs: Any, z: Any = ()) -> np.ndarray:
        """`z` as of `SkillPolicy.act`, or a SkillSwitcher, which is asked for each action alone."""
        if not now >= self._last:
            raise SkillError(f"now is {now:g} s, after {self._last:g} s: expected times that do not run backwards.")
        if self.timeout is not None and now - self._last > self.timeout and self._last > -math.inf:
            self.late += 1
            self._ctrl, self._due = self.safe, now + self.step
        self._last = now
        if now >= self._due - 1e-9:  # Due in steps from the first one, so that delays do not add up.
            try:
                skill = z(obs) if isinstance(z, SkillSwitcher) else z
                self._ctrl = self.policy.scale(self.policy.act(obs, skill))
            except SkillError as error:
                if self._due == -math.inf:
                    raise
                self._ctrl, self.refused, self.error = self.safe, self.refused + 1, str(error)
            self._due = (max(self._due, now - self.step) if self._due > -math.inf else now) + self.step
        return self._ctrl.copy()
