"""All uses of Snakemake's internals, in one place."""

import logging
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from rollout_bench.core.interrupts import was_interrupted
from rollout_bench.core.places import home


class Internals:
    """The internals of Snakemake 9.27 that we use, each with the reason.

    Args:
        workflow: Snakemake's `Workflow` object.
    """

    def __init__(self, workflow: Any) -> None:
        self._workflow = workflow

    def limited(self, resource: str, most: Callable[[], int]) -> int:
        """Limit the total of a resource over all jobs to `most()`, unless the user set a limit; return the limit.

        Snakemake's settings have only the unparsed text of a user's limit (`--resources devices=4`).
        A profile can't set this limit, because the number of devices is known only on the machine. A user's
        `--resources` would also replace the profile's whole list, including the limits of single devices.
        """
        limit: int | None = self._workflow.global_resources.get(resource).value
        if limit is None:
            self._workflow.register_resource(resource, limit := most())
        return limit

    def force(self, outputs: Iterable[str]) -> None:
        """Run the jobs that make `outputs` even if Snakemake considers these files up to date.

        Snakemake considers outputs up to date if an input is missing. It also ignores a changed selection, and copied
        or deleted records: the output of a block is a mark whose records may be gone. `forcerun` in a profile is no
        alternative, because it rewrites the summary in every run. Snakemake would then never print that there is
        nothing to be done.
        """
        self._workflow.dag.forcefiles.update(outputs)

    def say_in_dry_run(self, text: str) -> None:
        """Print `text` in a dry run, unless --quiet hides what Snakemake itself says there; else do nothing."""
        plugin = self._workflow.executor_plugin
        if plugin is not None and plugin.common_settings.dryrun_exec:
            self._workflow.logger_manager.logger.info(text)

    def outputs_to_make(self) -> list[str]:
        """Return the outputs of all jobs to run. No directive lists them before the first job begins."""
        return [str(file) for job in self._workflow.dag.needrun_jobs() for file in job.output]

    def hide_progress(self, nothing_to_do: Callable[[], None]) -> None:
        """Stop printing the choice, start and end of jobs; warnings and errors stay, and Snakemake's log has all.

        A run with nothing to do calls `nothing_to_do` after it has said so; Snakemake calls no handler then.

        The run prints its own progress. `--quiet` hides only some of these lines. Rules and commands, which the profile
        hides, stay if a user asks for them; so does everything that a dry run prints.
        """
        self._nothing_to_do = nothing_to_do
        for handler in self._workflow.logger_manager.logger.handlers:
            if handler.name == "DefaultStreamHandler":
                handler.addFilter(self._is_shown)

    def _is_shown(self, record: logging.LogRecord) -> bool:
        text, plugin = record.getMessage(), self._workflow.executor_plugin
        if record.levelname != "INFO" or vars(record).get("event") in ("job_info", "shellcmd"):
            # each job that can says itself why it ended
            by_itself = f'in file "{home() / "workflow"}' in text and "returned non-zero exit status" in text
            return not by_itself and not (was_interrupted() and re.search(r"died with <Signals\.SIG(INT|TERM)", text))
        if plugin is None:  # nothing is executed yet, or ever: --lint, --list
            return not text.startswith("Assuming unrestricted shared filesystem")
        if plugin.common_settings.dryrun_exec:
            return True
        if text.startswith("Nothing to be done"):
            print(text, file=sys.stderr, flush=True)
            self._nothing_to_do()
        return False

    def drop_default_rate_limit(self) -> None:
        """Remove Snakemake's default limit of 100 jobs a second. A limit that the user set stays.

        This workflow never reaches 100 jobs a second, but the limit has a cost. Each search for jobs to start sets a
        timer for another search, which sets the next timer. After k launches Snakemake searches all remaining jobs k
        times a second, with a thread for each timer, while an engine is measured.
        `max-jobs-per-timespan` in a profile can't switch the limit off. With a longer timespan, Snakemake waits at its
        end for the last timer.
        """
        limit = self._workflow.scheduling_settings.max_jobs_per_timespan
        if limit and (limit.max_jobs, limit.timespan) == (100, 1):
            self._workflow.scheduler.job_rate_limiter = None

    def ask_again_after_silence_of_slurm(self) -> None:
        """Keep asking about submitted jobs after Slurm left a question unanswered, as during a controller's restart.

        The Slurm plugin (2.8.0) would forget these jobs, and Snakemake would wait for their end forever.
        """
        if self._workflow.executor_plugin.name != "slurm":
            return
        executor = self._workflow.scheduler._executor
        check = executor.check_active_jobs

        async def check_active_jobs(jobs: list[Any]) -> AsyncIterator[Any]:
            answers = executor._status_query_calls
            async for job in check(jobs):
                yield job
            if executor._status_query_calls == answers:
                for job in jobs:
                    yield job

        executor.check_active_jobs = check_active_jobs
