"""Flags of launches that only loads at a server have."""

from rollout_bench.contracts.problems import FlagKind

FLAGS = (
    FlagKind(
        "requests_failed",
        "W, I",
        found="requests failed",
        raised_if="requests failed: any, 1 %",
        remedy="read the quoted error; after 429 or 503 send less at once",
        mended_by="read the server's log",
    ),
    FlagKind(
        "server_gone",
        "I",
        found="the server went away",
        raised_if="1 % of requests failed without a server",
        remedy="start the server and run again",
        mended_by="start the server again, and read its log",
    ),
    FlagKind(
        "cut_at_end",
        "W, I",
        found="requests were cut at the end of the load's time",
        raised_if="requests were cut at the end: 10 %, all",
        remedy="set `duration_s` to at least ten times an answer",
    ),
    FlagKind(
        "sent_late",
        "W",
        found="requests were sent later than due",
        raised_if="over 1 % of requests were late by 5 ms and 10 % of TTFT",
        remedy="send less, free the sender's cores, or move the server to another machine",
    ),
)
