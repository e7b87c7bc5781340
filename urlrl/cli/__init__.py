"""The command line, `urlrl VERB`: the table of verbs, and what their errors become.

A verb is the module here that has its name: its options, its call, and how the result is shown. It is imported when it
runs.
"""

import importlib
import os
import sys

from urlrl.errors import UserError, shown, unknown
from urlrl.loading import OPTIONS, given

USAGE = """\
urlrl: unsupervised reinforcement learning in JAX

  urlrl pretrain metra --preset half-cheetah-quick --seed 0 --out runs/x
                             pretrain without reward; the same command continues a run
  urlrl evaluate runs/x      coverage and zero-shot goals, beside the random policy; diagnostics of the skills
  urlrl prompt runs/x "vx - 0.1 * energy"
                             ask for a reward, a --goal x=30 or a --demo FILE, and measure what it does
  urlrl report runs/x        a page with trajectories, curves, latents and videos
  urlrl compare --agents metra,rnd --env point --seeds 0..4 --out runs/c
                             settings with several seeds each, trained and side by side on one page
  urlrl adapt runs/x --task half_cheetah_goal
                             the ladder: prompt, search, hierarchy, fine-tuning, from scratch, on one axis of steps
  urlrl export runs/x --out bundles/x
                             skills for another controller: a bundle that NumPy runs, ONNX or StableHLO
  urlrl data convert PATH --out data/x
                             datasets of runs, ExORL, OGBench, D4RL, Minari, LeRobot: see `urlrl data`
  urlrl agents               the agents, what they learn from and what they can be asked
  urlrl tasks                the tasks, and the environments whose agents can be asked for them
  urlrl presets              named settings, where they come from and what they cost
  urlrl doctor               versions, backend, graphics, known-bad pairs

Every verb takes --trust: a run or a dataset may name code of yours, which is then imported. evaluate, prompt, report,
adapt and export also take --env NAME and --agent NAME, the names that the run must have (docs/security.md).

`urlrl VERB --help` lists the options of a verb. Exit codes: 0 done, 2 bad input, 3 training diverged, or runs
of several failed, 75 stopped by a signal and saved (the same command continues)."""
VERBS = (
    "pretrain", "evaluate", "prompt", "report", "compare", "adapt", "export", "data", "agents", "tasks", "presets",
    "doctor",
)  # fmt: skip
READERS = ("evaluate", "prompt", "report", "adapt", "export")  # verbs whose first argument is a run


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    try:
        if argv[0] == "--version":
            import urlrl

            print(urlrl.__version__)
        elif argv[0] not in VERBS:
            raise unknown("command", argv[0], VERBS)
        else:
            from urlrl.cli.arguments import take, take_flag, with_home

            verb, *options = map(with_home, argv)
            names = OPTIONS if verb in READERS else {}
            words = {field: name for field, option in names.items() if (name := take(options, option)) is not None}
            with given(take_flag(options, "--trust"), words):
                importlib.import_module(f"urlrl.cli.{verb}").main(options)
    except UserError as error:
        print(f"urlrl: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # The reader, `head` for one, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Flushing at exit has somewhere to go.
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        from urlrl.training.memory import out_of_memory

        if (said := out_of_memory(error)) is None:
            raise
        print(f"urlrl: {said}.", file=sys.stderr)
        sys.exit(UserError.exit_code)
    except OSError as error:  # A disk that is full, a file that may not be read.
        print(f"urlrl: {shown(error.filename or 'a file')}: {error.strerror or error}.", file=sys.stderr)
        sys.exit(UserError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
