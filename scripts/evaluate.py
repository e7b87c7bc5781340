"""Evaluate a run zero-shot: `python scripts/evaluate.py runs/x`. The same as `urlrl evaluate`."""

import sys

from urlrl.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
