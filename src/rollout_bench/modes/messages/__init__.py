"""The messages between engine core and workers."""

from rollout_bench.contracts.mode import Mode

MODE = Mode(
    name="messages",
    title="the messages between engine core and workers",
    package=__name__,
    page="vllm-developers.md",
    example="configs/messages.yaml",
    side_files=(),
    generates=False,
    passes="once",
    launches="least",
    data_parallel="one",
    shares=True,
    settings="messages",
    figures=("messages", "message_shares"),
)
