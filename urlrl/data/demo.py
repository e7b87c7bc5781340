"""A demonstration in a file: the states of one episode."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from urlrl.data.claims import map_npy, reading
from urlrl.errors import UserError, sentence, shown

LARGEST = float(np.finfo(np.float32).max)
DEMO_SUFFIXES = (".safetensors", ".npy", ".csv")
DEMO_DTYPES = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8")  # of a safetensors file


def read_demo(path: Path) -> np.ndarray:
    """The numbers in a file: of .safetensors its tensor `obs` or its only one, of .csv with or without a header."""
    if path.suffix not in DEMO_SUFFIXES:
        raise UserError(f"Demonstration {path} has the suffix '{path.suffix}': expected {', '.join(DEMO_SUFFIXES)}.")
    if path.suffix == ".npy":
        return np.array(map_npy(path))
    with reading(f"Demonstration {path}"):
        if path.suffix == ".csv":
            lines = path.read_text().splitlines()
            header = bool(lines) and not _is_number(lines[0].split(",")[0])
            return np.loadtxt(lines[header:], delimiter=",", ndmin=2)
        return _demo_tensor(path)


def _demo_tensor(path: Path) -> np.ndarray:
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if "next_obs" in names:
                raise UserError(
                    f"Demonstration {path} holds transitions, of many episodes: expected one episode's obs."
                )
            if "obs" not in names and len(names) != 1:
                held = shown(", ".join(names)) or "nothing"
                raise UserError(f"Demonstration {path} holds {held}: expected a tensor 'obs'.")
            name = "obs" if "obs" in names else names[0]
            if (dtype := file.get_slice(name).get_dtype()) not in DEMO_DTYPES:
                raise UserError(f"Demonstration {path} holds {dtype}: expected one of {', '.join(DEMO_DTYPES)}.")
            return file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def checked_demo(obs: np.ndarray, name: str, obs_dim: int) -> np.ndarray:
    """(T, obs) float32."""
    if obs.dtype.kind not in "fiu" or obs.ndim != 2 or obs.shape[1] != obs_dim or len(obs) < 2:
        held = f"{shown(obs.dtype)} of shape {obs.shape}"
        raise UserError(f"{sentence(name)} holds {held}: expected numbers of shape (T, {obs_dim}), T at least 2.")
    bad = np.flatnonzero(~(np.abs(obs) <= LARGEST).all(axis=1))
    if len(bad):
        raise UserError(f"{sentence(name)} is not finite in row {bad[0]}: expected finite numbers.")
    return obs.astype(np.float32)
