"""What rule `summary` starts: it reads the records and writes tables, page and figures."""

import sys

from rollout_bench.__main__ import main

main(["summarise", *sys.argv[1:]])
