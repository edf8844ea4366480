"""Imported by every Python that has this folder on its PYTHONPATH, before anything else."""

import gc
import os

import keep_out

gc.set_threshold(50_000)  # starting takes a sixth less time, and most of what tests wait for are starts

if keep_out.VARIABLE in os.environ:
    keep_out.watch(*os.environ[keep_out.VARIABLE].split("\n"))
