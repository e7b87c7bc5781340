"""Environments by name: a key of `ENVS`, `dmc:<domain>_<task>`, `jaco:<kind>_<corner>`,
`maze:<layout>[_fixed][_mass][_cells]`, `mjx:<body>`, `ogbench:<id>`, `gym:<id>`, or a user's `module:function`."""

from collections.abc import Callable

from urlrl.errors import UserError, unknown
from urlrl.types import DeviceEnv, HostEnv


def _ant(**options) -> HostEnv:
    from urlrl.envs.locomotion import ANT, LocomotionEnv

    return LocomotionEnv(ANT, **options)


def _half_cheetah(**options) -> HostEnv:
    from urlrl.envs.locomotion import HALF_CHEETAH, LocomotionEnv

    return LocomotionEnv(HALF_CHEETAH, **options)


def _point(**options) -> HostEnv:
    from urlrl.envs.point import PointEnv

    return PointEnv(**options)


def _half_cheetah_hurdle(**options) -> HostEnv:
    from urlrl.envs.locomotion import HALF_CHEETAH_HURDLE, LocomotionEnv

    return LocomotionEnv(HALF_CHEETAH_HURDLE, **options)


def _ogbench_ant(**options) -> HostEnv:
    from urlrl.envs.locomotion import OGBENCH_ANT, LocomotionEnv

    return LocomotionEnv(OGBENCH_ANT, **options)


def _point_mass_maze(**options) -> HostEnv:
    from urlrl.envs.point_mass import PointMassMazeEnv

    return PointMassMazeEnv(**options)


ENVS: dict[str, Callable[..., HostEnv]] = {
    "ant": _ant,
    "half_cheetah": _half_cheetah,
    "half_cheetah_hurdle": _half_cheetah_hurdle,
    "ogbench:ant": _ogbench_ant,
    "point": _point,
    "point_mass_maze": _point_mass_maze,
}


def make_env(name: str, num_envs: int = 1, *, episode_steps: int | None = None, root_position: bool = False) -> HostEnv:
    """`num_envs` copies of an environment, stepped together.

    Args:
        name: a key of `ENVS`, `dmc:<domain>_<task>`, `jaco:<kind>_<corner>`, `maze:<layout>[_fixed][_mass][_cells]`,
            `mjx:<body>`, `ogbench:<id>`, `gym:<id>`, or `module:function` where the function takes nothing and
            returns a `gymnasium.Env`.
        episode_steps: another time limit, in control steps; None keeps the environment's own.
        root_position: put the root's position in front of the observation (`dmc:` only: its observations lack it,
            and METRA's phi can only cover what it sees).

    Raises:
        UserError: no such environment, or its spaces are not flat boxes.
    """
    if root_position and not name.startswith(("dmc:", "mjx:")):
        raise UserError(f"Environment '{name}' has no option root_position: expected a dmc: or a mjx: environment.")
    if name in ENVS:
        return ENVS[name](num_envs=num_envs, episode_steps=episode_steps)
    kind, _, rest = name.partition(":")
    if kind == "dmc":
        from urlrl.envs.dmc import DmcEnv

        return DmcEnv(rest, num_envs, episode_steps=episode_steps, root_position=root_position)
    if kind == "jaco":
        from urlrl.envs.jaco import JacoEnv

        return JacoEnv(rest, num_envs, episode_steps=episode_steps)
    if kind == "maze":
        from urlrl.envs.maze import MazeEnv

        return MazeEnv(rest, num_envs, episode_steps=episode_steps)
    if kind == "mjx":
        from urlrl.envs.on_device import DeviceHostEnv

        return DeviceHostEnv(make_device_env(name, episode_steps=episode_steps, root_position=root_position), num_envs)
    if kind == "ogbench":
        from urlrl.envs.ogbench import OGBenchEnv

        return OGBenchEnv(rest, num_envs, episode_steps=episode_steps)
    if kind == "gym" or rest:
        from urlrl.envs.gym import GymEnv, find_maker

        return GymEnv(name, find_maker(name), num_envs, episode_steps=episode_steps)
    schemes = ("dmc:<domain>_<task>", "jaco:<kind>_<corner>", "maze:<layout>", "mjx:<body>", "ogbench:<id>", "gym:<id>")
    raise unknown("environment", name, [*ENVS, *schemes, "module:function"])


def make_device_env(name: str, *, episode_steps: int | None = None, root_position: bool = False) -> DeviceEnv:
    """An environment as pure JAX functions, of a name and with the options that `make_env` knows.

    Raises:
        UserError: it has none; the message names those that have.
    """
    kind, _, rest = name.partition(":")
    if name == "point":
        from urlrl.envs import point

        return point.device_env(episode_steps)
    if kind == "maze":
        from urlrl.envs import maze

        return maze.device_env(rest, episode_steps)
    if kind == "mjx":
        from urlrl.envs import mjx

        return mjx.device_env(name, episode_steps, root_position)
    from urlrl.envs import mjx, mjx_dmc

    names = ["point", "maze:<layout>[_fixed][_mass][_cells]", *mjx.BODIES, *mjx_dmc.TASKS]
    raise UserError(f"Environment '{name}' has no device version: expected {', '.join(names[:-1])} or {names[-1]}.")


def twin_of(name: str) -> str | None:
    """The environment with these observations and dynamics in C MuJoCo, of one in another simulator: `EnvSpec.twin`."""
    if not name.startswith("mjx:"):
        return None
    from urlrl.envs import mjx_dmc

    return mjx_dmc.twin(name) if name in mjx_dmc.TASKS else name.removeprefix("mjx:")
