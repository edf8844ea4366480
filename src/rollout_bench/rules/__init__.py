"""Functions for the workflow's rules: the plan of a call, inputs and parameters of jobs, start and end of a run."""
