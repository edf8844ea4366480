"""What rule `measure` starts: one launch of each engine of a block, with their passes in turn."""

import sys

from rollout_bench.__main__ import main

main(["measure", *sys.argv[1:]])
