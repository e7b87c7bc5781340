"""Environments by name: a key of `ENVS`, a name of one of `SCHEMES`, or a user's `module:function`; after one of ours a
plus and distractors (envs/distractors.py)."""

from collections.abc import Callable
from typing import NamedTuple

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


class Scheme(NamedTuple):
    """Environments whose names begin with `<key>:`."""

    names: str  # how they look
    host: Callable[..., HostEnv]  # name, what follows the colon, num_envs, options of `make_env`
    device: Callable[..., DeviceEnv] | None = None  # name, what follows the colon, options of `make_device_env`
    takes_root: bool = False  # whether it has the option root_position


def _block(name: str, rest: str, num_envs: int, episode_steps: int | None) -> HostEnv:
    from urlrl.envs.on_device import DeviceHostEnv

    return DeviceHostEnv(_block_on_device(name, rest, episode_steps), num_envs)


def _block_on_device(name: str, rest: str, episode_steps: int | None) -> DeviceEnv:
    from urlrl.envs import block

    return block.device_env(rest, episode_steps)


def _dmc(name: str, rest: str, num_envs: int, **options) -> HostEnv:
    from urlrl.envs.dmc import DmcEnv

    return DmcEnv(rest, num_envs, **options)


def _jaco(name: str, rest: str, num_envs: int, episode_steps: int | None) -> HostEnv:
    from urlrl.envs.jaco import JacoEnv

    return JacoEnv(rest, num_envs, episode_steps=episode_steps)


def _maze(name: str, rest: str, num_envs: int, episode_steps: int | None) -> HostEnv:
    from urlrl.envs.maze import MazeEnv

    return MazeEnv(rest, num_envs, episode_steps=episode_steps)


def _maze_on_device(name: str, rest: str, episode_steps: int | None) -> DeviceEnv:
    from urlrl.envs import maze

    return maze.device_env(rest, episode_steps)


def _mjx(name: str, rest: str, num_envs: int, **options) -> HostEnv:
    from urlrl.envs.on_device import DeviceHostEnv

    return DeviceHostEnv(_mjx_on_device(name, rest, **options), num_envs)


def _mjx_on_device(name: str, rest: str, episode_steps: int | None, root_position: bool) -> DeviceEnv:
    from urlrl.envs import mjx

    return mjx.device_env(name, episode_steps, root_position)


def _ogbench(name: str, rest: str, num_envs: int, episode_steps: int | None) -> HostEnv:
    from urlrl.envs.ogbench import OGBenchEnv

    return OGBenchEnv(rest, num_envs, episode_steps=episode_steps)


def _rooms(name: str, rest: str, num_envs: int, episode_steps: int | None) -> HostEnv:
    from urlrl.envs.on_device import DeviceHostEnv

    return DeviceHostEnv(_rooms_on_device(name, rest, episode_steps), num_envs)


def _rooms_on_device(name: str, rest: str, episode_steps: int | None) -> DeviceEnv:
    from urlrl.envs import rooms

    return rooms.device_env(rest, episode_steps)


def _tv(name: str, rest: str, num_envs: int, episode_steps: int | None) -> HostEnv:
    from urlrl.envs.on_device import DeviceHostEnv

    return DeviceHostEnv(_tv_on_device(name, rest, episode_steps), num_envs)


def _tv_on_device(name: str, rest: str, episode_steps: int | None) -> DeviceEnv:
    from urlrl.envs import tv

    return tv.device_env(rest, episode_steps)


def _gym(name: str, rest: str, num_envs: int, episode_steps: int | None) -> HostEnv:
    from urlrl.envs.gym import GymEnv, find_maker

    return GymEnv(name, find_maker(name), num_envs, episode_steps=episode_steps)


SCHEMES = {
    "block": Scheme("block:<line>", _block, _block_on_device),
    "dmc": Scheme("dmc:<domain>_<task>", _dmc, takes_root=True),
    "jaco": Scheme("jaco:<kind>_<corner>", _jaco),
    "maze": Scheme("maze:<layout>[_fixed][_mass][_cells]", _maze, _maze_on_device),
    "mjx": Scheme("mjx:<body>", _mjx, _mjx_on_device, takes_root=True),
    "ogbench": Scheme("ogbench:<id>", _ogbench),
    "rooms": Scheme("rooms:<world>", _rooms, _rooms_on_device),
    "tv": Scheme("tv:rooms[_quiet]", _tv, _tv_on_device),
    "gym": Scheme("gym:<id>", _gym),
}
_OWN = Scheme("module:function", _gym)  # a user's


def make_env(name: str, num_envs: int = 1, *, episode_steps: int | None = None, root_position: bool = False) -> HostEnv:
    """`num_envs` copies of an environment, stepped together.

    Args:
        name: a key of `ENVS`, a name of one of `SCHEMES`, or `module:function` where the function takes nothing and
            returns a `gymnasium.Env`. One of the first two may end with distractors, as in `dmc:walker_walk+noise10`.
        episode_steps: another time limit, in control steps; None keeps the environment's own.
        root_position: put the root's position in front of the observation (`dmc:` and `mjx:` only: their observations
            lack it, and METRA's phi can only cover what it sees).

    Raises:
        UserError: no such environment, or its spaces are not flat boxes.
    """
    if "+" in name:
        from urlrl.envs.distractors import DistractedEnv, parts

        name, more = parts(name)
        return DistractedEnv(make_env(name, num_envs, episode_steps=episode_steps, root_position=root_position), more)
    start, colon, rest = name.partition(":")
    scheme = SCHEMES.get(start, _OWN) if name not in ENVS and colon else None
    if root_position and not (scheme and scheme.takes_root):
        raise UserError(f"Environment '{name}' has no option root_position: expected a dmc: or a mjx: environment.")
    if name in ENVS:
        return ENVS[name](num_envs=num_envs, episode_steps=episode_steps)
    if scheme is None or (scheme is _OWN and not rest):
        known = [scheme.names for scheme in (*SCHEMES.values(), _OWN)]
        raise unknown("environment", name, [*ENVS, *known])
    root = {"root_position": root_position} if scheme.takes_root else {}
    return scheme.host(name, rest, num_envs, episode_steps=episode_steps, **root)


def make_device_env(name: str, *, episode_steps: int | None = None, root_position: bool = False) -> DeviceEnv:
    """An environment as pure JAX functions, of a name and with the options that `make_env` knows.

    Raises:
        UserError: it has none; the message names those that have.
    """
    if "+" in name:
        from urlrl.envs.distractors import distracted, parts

        name, more = parts(name)
        return distracted(make_device_env(name, episode_steps=episode_steps, root_position=root_position), more)
    if name == "point":
        from urlrl.envs import point

        return point.device_env(episode_steps)
    start, _, rest = name.partition(":")
    scheme = SCHEMES.get(start)
    if scheme and scheme.device:
        root = {"root_position": root_position} if scheme.takes_root else {}
        return scheme.device(name, rest, episode_steps=episode_steps, **root)
    from urlrl.envs import mjx, mjx_dmc

    schemes = [SCHEMES[start].names for start in ("maze", "block", "rooms", "tv")]
    names = ["point", *schemes, *mjx.BODIES, *mjx_dmc.TASKS]
    raise UserError(f"Environment '{name}' has no device version: expected {', '.join(names[:-1])} or {names[-1]}.")


def device_name(name: str) -> str:
    """What an environment is called on the device, if it is there: by its own name, or as a body of `mjx:`."""
    scheme = SCHEMES.get(name.partition(":")[0])
    there = name.partition("+")[0] == "point" or (scheme and scheme.device)
    return name if there else f"mjx:{name.removeprefix('dmc:')}"


def twin_of(name: str) -> str | None:
    """The environment with these observations and dynamics in C MuJoCo, of one in another simulator: `EnvSpec.twin`."""
    if not name.startswith("mjx:"):
        return None
    from urlrl.envs import mjx_dmc

    body, plus, distractors = name.partition("+")
    twin = mjx_dmc.twin(body) if body in mjx_dmc.TASKS else body.removeprefix("mjx:")
    return f"{twin}{plus}{distractors}"
