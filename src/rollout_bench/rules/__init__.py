"""What the rules of the workflow call: the plan of a call, inputs and parameters of jobs, start and end of a run."""
