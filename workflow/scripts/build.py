"""What rule `checkpoint` starts: it builds the weights of a synthetic model."""

import sys

from rollout_bench.__main__ import main

main(["build", *sys.argv[1:]])
