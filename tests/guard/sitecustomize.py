"""Imported by every Python that has this folder on its PYTHONPATH, before anything else."""

import os

import keep_out

if keep_out.VARIABLE in os.environ:
    keep_out.watch(*os.environ[keep_out.VARIABLE].split("\n"))
