"""Episodes as one animated WebP or MP4, a tile per episode, rendered by MuJoCo without a display.

MuJoCo chooses its GL backend when it is imported, and a wrong one can end the interpreter. So the rendering runs in a
process of its own, `python -m urlrl.evaluation.video <job folder>`, and nothing here imports `mujoco` before that.
"""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from urlrl.errors import UserError

if TYPE_CHECKING:
    import mujoco

WIDTH, HEIGHT = 240, 180  # pixels of a tile; one alone has twice as many each way
MAX_TILES, COLUMNS = 6, 3
MAX_FRAMES = {".webp": 120, ".mp4": 400}
MAX_SECONDS = 15.0  # longer episodes are shown faster; each tile carries the clock of its episode
MAX_BYTES = 3_000_000
QUALITIES = (70, 50, 30, 10)  # of the WebP encoder: the first that keeps within MAX_BYTES
RENDER_LIMIT, PROBE_LIMIT = 180, 30  # seconds for the other process
FILE = "skills.webp"
_NO_TRACE = "the process ended without a message"


def choose_episodes(z: np.ndarray, kind: str) -> tuple[list[int], list[str]]:
    """Episodes whose skills z (n, d) are spread over the prior, at most MAX_TILES, and a label for each."""
    if kind == "onehot":
        skills, first = np.unique(z.argmax(axis=1), return_index=True)
        chosen = np.unique(np.linspace(0, len(skills) - 1, MAX_TILES).astype(int))
        return first[chosen].tolist(), [f"skill {skills[i]}" for i in chosen]
    if z.shape[1] == 2:
        angle = np.degrees(np.arctan2(z[:, 1], z[:, 0])) % 360
        around = np.argsort(angle)[np.unique(np.linspace(0, len(z) - 1, MAX_TILES).astype(int))]
        return around.tolist(), [f"z at {angle[lane]:.0f}°" for lane in around]
    lanes = np.unique(np.linspace(0, len(z) - 1, MAX_TILES).astype(int)).tolist()
    return lanes, [f"episode {lane}" for lane in lanes]


def render_videos(
    model: "mujoco.MjModel", qpos: np.ndarray, folder: Path, *, fps: float, labels: Sequence[str]
) -> list[Path] | str:
    """`render_video` into `folder/skills.webp`; returns the files that were written, or why there is none."""
    return render_video(model, qpos, folder / FILE, fps=fps, labels=labels) or [folder / FILE]


def check_video(path: Path) -> None:
    """Refuse, before there is anything to render, a file that no video can be written to.

    Raises:
        UserError: another suffix than those of MAX_FRAMES, or nothing to encode MP4 with.
    """
    if path.suffix not in MAX_FRAMES:
        raise UserError(f"Video '{path}' has the suffix '{path.suffix}': expected {' or '.join(MAX_FRAMES)}.")
    if path.suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise UserError(
            f"Video '{path}' needs the package imageio-ffmpeg, which is not installed: expected it, or .webp."
        )


def render_video(
    model: "mujoco.MjModel", qpos: np.ndarray, path: Path, *, fps: float, labels: Sequence[str]
) -> str | None:
    """Render episodes side by side into `path`, with a camera that tracks the body.

    Args:
        qpos: (T + 1, n, nq) of n episodes; at most 6 are shown, the first ones.
        path: .webp or .mp4; its folder is made.
        fps: rows of qpos per second of simulated time.
        labels: one short text per episode.

    Returns:
        None, or one sentence that says why no file was written.

    Raises:
        UserError: qpos or labels do not fit the model or each other, or `check_video` refuses the path.
    """
    check_video(path)
    if qpos.ndim != 3 or qpos.shape[2] != model.nq or qpos.shape[1] != len(labels) or not qpos.shape[1]:
        raise UserError(
            f"Cannot render qpos of shape {qpos.shape} with {len(labels)} labels: "
            f"expected (T + 1, n, {model.nq}), and n >= 1 labels."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".video-", dir=path.parent) as name:
        job = Path(name).resolve()
        file = f"video{path.suffix}"
        told = {"fps": fps, "labels": list(labels[:MAX_TILES]), "file": file}
        _write_job(job, model, qpos[:, :MAX_TILES], told)
        failures = []
        for gl in gl_candidates():
            failure = _run(gl, [str(job)], job, RENDER_LIMIT)
            if failure is None:
                os.replace(job / file, path)
                return None
            failures.append(f"MUJOCO_GL={gl}: {failure}")
    return f"There is no video, because MuJoCo could not render off screen ({'; '.join(failures)})."


def find_gl() -> str | None:
    """The first value of MUJOCO_GL that renders off screen here, tried in processes of their own."""
    with tempfile.TemporaryDirectory() as cwd:
        return next((gl for gl in gl_candidates() if _run(gl, [], Path(cwd), PROBE_LIMIT) is None), None)


def gl_candidates() -> tuple[str, ...]:
    """What a user has set is tried alone."""
    chosen = os.environ.get("MUJOCO_GL")
    if chosen:
        return (chosen,)
    return ("egl", "osmesa") if sys.platform == "linux" else ("glfw",)


def _write_job(job: Path, model: "mujoco.MjModel", qpos: np.ndarray, told: dict[str, Any]) -> None:
    import mujoco

    mujoco.mj_saveModel(model, str(job / "model.mjb"))
    np.save(job / "qpos.npy", np.asarray(qpos, np.float64), allow_pickle=False)
    (job / "job.json").write_text(json.dumps(told))


def _run(gl: str, arguments: list[str], cwd: Path, seconds: float) -> str | None:
    """Run this file as a program under a backend; returns None where it succeeded, else its reason."""
    # The child looks for packages where this process found them; its folder keeps MuJoCo's log file out of the user's.
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    env = {**os.environ, "MUJOCO_GL": gl, "PYTHONPATH": path}
    env.pop("PYOPENGL_PLATFORM", None)  # MuJoCo sets it, and refuses one that belongs to another backend.
    command = [sys.executable, "-m", "urlrl.evaluation.video", *arguments]
    try:
        done = subprocess.run(
            command, env=env, cwd=cwd, timeout=seconds, capture_output=True, text=True, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return f"nothing after {seconds:g} s"
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    # The first exception is the cause; those that follow come from half-built objects at shutdown.
    cause = re.search(r"^(?:\w+\.)*\w*(?:Error|Exception): .+", done.stderr, re.MULTILINE)
    return cause[0][:160] if cause else f"{_NO_TRACE} (exit status {done.returncode})"


# What follows runs in the other process.


def _render_job(job: Path) -> None:
    import mujoco

    model = mujoco.MjModel.from_binary_path(str(job / "model.mjb"))
    qpos = np.load(job / "qpos.npy", allow_pickle=False)
    told = json.loads((job / "job.json").read_text())
    soften(model)
    file = job / told["file"]
    every = math.ceil(len(qpos) / MAX_FRAMES[file.suffix])
    rows = range(0, len(qpos), every)
    frames = list(_frames(model, qpos, rows, told["labels"], told["fps"]))
    seconds = min(len(frames) * every / told["fps"], MAX_SECONDS)
    save = _save_mp4 if file.suffix == ".mp4" else _save_webp
    save(frames, len(frames) / seconds, file)


def soften(model: "mujoco.MjModel") -> None:
    """Change a model's looks alone: an unbounded pale floor, on a light background."""
    import mujoco

    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE):
        model.geom_size[geom, :2] = 0  # MuJoCo draws it without an end, so a body never runs off it.
        model.geom_rgba[geom, :3] = 1
        material = model.geom_matid[geom]
        if material >= 0:
            model.mat_texuniform[material] = True
            model.mat_texrepeat[material] = 0.5  # Textures are 2 x 2 checkers: squares of 1 m.
            model.mat_reflectance[material] = 0
            model.mat_rgba[material, :3] = 1
            _pale(model, int(model.mat_texid[material].max()), 165, 205)
    for texture in np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX):
        _pale(model, int(texture), 212, 235)
    model.vis.headlight.ambient[:] = 0.35  # Shadows are grey, not black.
    model.light_diffuse[:] *= 0.6
    model.vis.quality.shadowsize = 1024  # Software renderers spend most of their time on shadows.


def _pale(model: "mujoco.MjModel", texture: int, low: int, high: int) -> None:
    """Make a texture grey, with values from `low` to `high` of 255."""
    if texture < 0:
        return
    channels = model.tex_nchannel[texture]
    start, size = model.tex_adr[texture], model.tex_height[texture] * model.tex_width[texture] * channels
    pixels = model.tex_data[start : start + size].reshape(-1, channels)
    grey = pixels[:, :3].mean(axis=1, keepdims=True)
    spread = max(float(np.ptp(grey)), 1.0)
    pixels[:, :3] = np.round(low + (high - low) * (grey - grey.min()) / spread)


def _camera(model: "mujoco.MjModel") -> Any:
    """The model's camera named `track`, else a free one that follows the first body."""
    import mujoco

    if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track") >= 0:
        return "track"
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
    camera.trackbodyid = min(1, model.nbody - 1)
    camera.elevation = -15
    return camera


def _frames(model: "mujoco.MjModel", qpos: np.ndarray, rows: range, labels: list[str], fps: float):
    """Yield one picture of the whole grid per row, as PIL images."""
    import mujoco
    from PIL import Image, ImageDraw, ImageFont

    data, camera = mujoco.MjData(model), _camera(model)
    fixed_lights = model.light_bodyid == 0
    columns = min(COLUMNS, len(labels))
    scale = 2 if len(labels) == 1 else 1
    width, height, font = scale * WIDTH, scale * HEIGHT, ImageFont.load_default(11 + scale)
    size = (columns * width, math.ceil(len(labels) / columns) * height)
    with mujoco.Renderer(model, height, width) as renderer:
        for row in rows:
            grid = Image.new("RGB", size, (220, 220, 220))
            draw = ImageDraw.Draw(grid)
            for tile, label in enumerate(labels):
                data.qpos[:] = qpos[row, tile]
                mujoco.mj_forward(model, data)
                data.light_xpos[fixed_lights, :2] += data.subtree_com[0, :2]  # Shadows end a few metres from a light.
                renderer.update_scene(data, camera=camera)
                x, y = tile % columns * width, tile // columns * height
                grid.paste(Image.fromarray(renderer.render()), (x, y))
                draw.text((x + 8, y + 6), label, (30, 30, 30), font)
                draw.text((x + width - 8, y + 6), f"{row / fps:.1f} s", (30, 30, 30), font, anchor="ra")
            yield grid


def _save_webp(frames: list, fps: float, path: Path) -> None:
    frame_ms = round(1000 / fps)
    for quality in QUALITIES:
        frames[0].save(
            path, save_all=True, append_images=frames[1:], duration=frame_ms, loop=0, quality=quality, method=3
        )
        if path.stat().st_size <= MAX_BYTES:
            return


def _save_mp4(frames: list, fps: float, path: Path) -> None:
    """H.264, which every browser plays; ffmpeg comes with the package."""
    import imageio_ffmpeg

    writer = imageio_ffmpeg.write_frames(str(path), frames[0].size, fps=fps, quality=7, macro_block_size=2)
    writer.send(None)  # Starts ffmpeg.
    for frame in frames:
        writer.send(frame.tobytes())
    writer.close()


def _probe() -> None:
    """Draw a lit ball and see that the picture is not empty: broken drivers give a black one without an error."""
    import mujoco

    model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size="1"/></worldbody></mujoco>')
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, 32, 32) as renderer:
        renderer.update_scene(data)
        if renderer.render().std() == 0:
            raise RuntimeError("the driver draws empty pictures")


if __name__ == "__main__":
    _probe()
    if len(sys.argv) > 1:
        _render_job(Path(sys.argv[1]))
