"""Write the page of a run: `python scripts/report.py runs/x`. The same as `urlrl report`."""

import sys

from urlrl.cli import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
