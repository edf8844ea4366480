"""Snakemake's insides: all that is used of them, in one place."""

from __future__ import annotations

from typing import Any


class Internals:
    """Everything that is used of Snakemake 9.27 besides its settings and directives, each with its reason.

    Args:
        workflow: Snakemake's.
    """

    def __init__(self, workflow: Any) -> None:
        self._workflow = workflow

    def limit_of(self, resource: str) -> int | None:
        """Return the limit of a resource that the user set (`--resources devices=4`), or None.

        Settings hold it too, but not parsed.
        """
        limit = self._workflow.global_resources.get(resource)
        return None if limit is None else limit.value

    def limit(self, resource: str, most: int) -> None:
        """Limit a resource of all jobs together.

        A profile can't: how many devices there are is known only on the machine, and a user's `--resources` would
        replace the profile's list, those of single devices included.
        """
        self._workflow.register_resource(resource, most)

    def force(self, rule: str) -> None:
        """Run a rule even if Snakemake takes its outputs for up to date.

        It takes them for up to date where an input is missing, and does not see that the selection changed or that a
        record was copied or deleted. `forcerun` in a profile would write the summary anew in every run, and no run
        would say that nothing is to be done.
        """
        self._workflow.dag.forcerules.add(self._workflow.get_rule(rule))

    def force_output(self, path: str) -> None:
        """Run the job of an output even if the file is there: an empty mark, which no record stands behind any more."""
        self._workflow.dag.forcefiles.add(path)

    def outputs_to_make(self) -> list[str]:
        """Return the outputs of all jobs that are to run; no directive tells them before the first begins."""
        return [str(file) for job in self._workflow.dag.needrun_jobs() for file in job.output]

    def rules_to_run(self) -> set[str]:
        """Return the names of the rules whose jobs are to run; no directive tells them before the first begins."""
        return {job.rule.name for job in self._workflow.dag.needrun_jobs()}

    def drop_default_rate_limit(self) -> None:
        """Take back Snakemake's limit of 100 jobs a second, which nothing here comes near; another one stays.

        With a limit, each look for jobs to start sets a timer of its timespan that has it look once more, and that
        one sets the next: after k launches Snakemake looks k times a second through all that are left, with a thread
        for each timer, beside the engine that is measured. `max-jobs-per-timespan` in a profile can't switch it off,
        and with a longer timespan Snakemake does not end before its last timer has.
        """
        limit = self._workflow.scheduling_settings.max_jobs_per_timespan
        if limit and (limit.max_jobs, limit.timespan) == (100, 1):
            self._workflow.scheduler.job_rate_limiter = None
