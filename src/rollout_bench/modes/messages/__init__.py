"""The messages between engine core and workers."""

from rollout_bench.contracts.mode import Lazy, Mode

MODE = Mode(
    name="messages",
    title="the messages between engine core and workers",
    page="vllm-developers.md",
    example="config/messages.yaml",
    side_files=(),
    generates=False,
    passes="once",
    launches="least",
    data_parallel="one",
    shares=True,
    settings="messages",
    figures=("messages", "message_shares"),
    section=Lazy(f"{__name__}.settings:SECTION"),
    spec=Lazy(f"{__name__}.settings:OWN"),
    record=Lazy(f"{__name__}.record:RECORD"),
    planning=Lazy(f"{__name__}.checks:PLANNING"),
    failures=Lazy(f"{__name__}.problems:FAILURES"),
    worker=Lazy(f"{__name__}.worker:measure"),
    collector=Lazy(f"{__name__}.collector:Collector"),
    hooks=Lazy(f"{__name__}.hooks:HOOKS"),
    tables=Lazy(f"{__name__}.report:part_of"),
    analyse=Lazy(f"{__name__}.report:analyse"),
    drawings=Lazy(f"{__name__}.figures:DRAWINGS"),
)
