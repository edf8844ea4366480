"""Numbers of an iteration's sequences: when they were complete, and how they filled the engine."""

from rollout_bench.numbers.number import Number

ANATOMY = "Anatomy of a step"


def _time(name: str, header: str, definition: str) -> Number:
    return Number(name, "s", header, definition, numerator=name, of="sequences", table=ANATOMY, digits=3)


def _compared(name: str, header: str, speedup: str, definition: str) -> Number:
    return Number(
        name, "s", header, definition, better="lower", numerator=name, of="sequences", table=ANATOMY, speedup=speedup,
        part=name in ("t90_s", "tail_s"), set_by_load=True, digits=3,
    )  # fmt: skip


def _share(name: str, header: str, definition: str) -> Number:
    return Number(
        name, "share", header, definition, numerator=name, of="sequences", table=ANATOMY, factor=100, digits=3
    )


def _tokens(name: str, header: str, definition: str) -> Number:
    return Number(name, "tokens", header, definition, numerator=name, of="sequences")


SEQUENCES = (
    _time(
        "makespan_s",
        "makespan s",
        "Time until the last sequence of an iteration was complete, in seconds. It excludes the time to return the "
        "answers. The columns of this table exclude failed requests.",
    ),
    _time("t50_s", "t50 s", "Time until half of the sequences were complete."),
    _compared(
        "t90_s",
        "t90 s",
        "t90 speed-up",
        "Time until 90 % of the sequences of an iteration were complete, in seconds. Mean over iterations, then over "
        "launches, as in all columns of this table.",
    ),
    _time(
        "t99_s",
        "t99 s",
        "Time until 99 % of the sequences were complete; with fewer than 100 sequences, all of them.",
    ),
    _compared(
        "tail_s",
        "tail s",
        "tail speed-up",
        "Makespan - t90: the time that an iteration waited for the last tenth of its sequences, in seconds.",
    ),
    _share("tail_share", "tail %", "Tail as a share of the makespan."),
    _time("fill_s", "fill s", "Time until the last sequence was first scheduled (behind a server: sent)."),
    _time(
        "drain_s",
        "drain s",
        "Makespan - the last time at which the maximum number of sequences ran: how long the engine took to empty.",
    ),
    Number(
        name="most_running",
        unit="",
        header="most running",
        definition="Maximum number of sequences that ran at once.",
        numerator="most_running",
        of="sequences",
    ),
    Number(
        name="occupancy",
        unit="",
        header="occupancy %",
        definition="Sum of the running times of all sequences / (makespan x maximum number of running sequences): 100 "
        "if this number ran from beginning to end. A sequence runs from its first scheduling (behind a server: its "
        "sending) to its last token.",
        numerator="occupancy",
        of="sequences",
        table=ANATOMY,
        factor=100,
        digits=3,
    ),
    _time(
        "group_p50_s",
        "group p50 s",
        "Time until half of the groups were complete. A group is all samples of a prompt; it is complete with its last "
        "sample.",
    ),
    _compared(
        "group_p90_s",
        "group p90 s",
        "group p90 speed-up",
        "Time until 90 % of the groups of an iteration were complete, in seconds. A group is all samples of a prompt; "
        "it is complete with its last sample.",
    ),
    _time(
        "straggler_gap_s",
        "straggler s",
        "Time from the completion of half of a group's samples until its last sample, in seconds; mean over groups.",
    ),
    Number(
        name="longest_tokens",
        unit="tokens",
        header="longest tokens",
        definition="Output tokens of the longest sequence.",
        numerator="longest_tokens",
        of="sequences",
        table=ANATOMY,
        digits=0,
    ),
    Number(
        name="longest_tokens_per_s",
        unit="tokens/s",
        header="longest tok/s",
        definition="Tokens of the longest sequence per second of its running time.",
        numerator="longest_tokens_per_s",
        of="sequences",
        table=ANATOMY,
        digits=3,
    ),
    Number(
        name="longest_speed",
        unit="",
        header="longest / median",
        definition="Longest tok/s / the median rate of all sequences. Above 1, the sequence became faster as others "
        "finished.",
        numerator="longest_speed",
        of="sequences",
        table=ANATOMY,
        digits=3,
    ),
    _tokens(
        "response_length_mean_tokens", "length mean", "Mean output tokens of a sequence: verl's response_length/mean."
    ),
    _tokens(
        "response_length_max_tokens", "length max", "Most output tokens of a sequence: verl's response_length/max."
    ),
    _tokens(
        "response_length_min_tokens", "length min", "Fewest output tokens of a sequence: verl's response_length/min."
    ),
    Number(
        name="response_length_clip_ratio",
        unit="",
        header="clipped %",
        definition="Share of the sequences that reached the maximum length: verl's response_length/clip_ratio.",
        numerator="response_length_clip_ratio",
        of="sequences",
        factor=100,
        digits=3,
    ),
    Number(
        name="timing_per_token_ms",
        unit="ms",
        header="ms per token",
        definition="Time of an iteration / the tokens of all its sequences: verl's timing_per_token_ms/gen.",
        numerator="timing_per_token_ms",
        of="sequences",
    ),
)
