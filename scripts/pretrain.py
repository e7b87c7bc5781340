"""Launch pretraining: `python scripts/pretrain.py metra --preset half-cheetah-quick`. The same as `urlrl pretrain`."""

import sys

from urlrl.cli import main

if __name__ == "__main__":
    main(["pretrain", *sys.argv[1:]])
