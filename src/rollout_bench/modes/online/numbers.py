"""Numbers of requests to a server, from the times of each request."""

from rollout_bench.contracts.load import KEPT_UP
from rollout_bench.core.numbers import plain_percent
from rollout_bench.numbers.generation import RATES, THROUGHPUT
from rollout_bench.numbers.number import P99, Number

LATENCY = "Latency, means"

NUMBERS = (
    Number(
        name="duration_s",
        unit="s",
        header="duration s",
        definition="Time of the load in a launch, all measured iterations together; iter. s is the time of one.",
        table=RATES,
        of="requests",
        mode="online",
    ),
    Number(
        name="completed_requests_per_s",
        unit="requests/s",
        header="req/s",
        definition="Successful requests of the measured iterations of a launch, divided by the elapsed time of these "
        "iterations; mean over launches.",
        table=THROUGHPUT,
        digits=3,
        of="requests",
        mode="online",
    ),
    Number(
        name="ttft_s",
        unit="s",
        header="TTFT ms",
        definition="Time to first token: from sending a request until receiving its first token, in "
        "milliseconds. Mean over the requests of a launch, then over launches, as in the next three "
        "columns.",
        better="lower",
        speedup="TTFT speed-up",
        table=LATENCY,
        factor=1000,
        of="requests",
        mode="online",
    ),
    Number(
        name="tpot_s",
        unit="s",
        header="TPOT ms",
        definition="Time per output token after the first: (E2EL - TTFT) / (output tokens - 1). Requests with "
        "one output token are left out.",
        better="lower",
        speedup="TPOT speed-up",
        table=LATENCY,
        factor=1000,
        of="requests",
        mode="online",
    ),
    Number(
        name="itl_s",
        unit="s",
        header="ITL ms",
        definition="Inter-token latency: the gap between two pieces of an answer, over all gaps of all requests. "
        "A piece of several tokens adds one gap, as in vLLM's benchmark.",
        better="lower",
        speedup="ITL speed-up",
        table=LATENCY,
        factor=1000,
        of="requests",
        mode="online",
    ),
    Number(
        name="e2el_s",
        unit="s",
        header="E2EL ms",
        definition="End-to-end latency: from sending a request until receiving its last token. Offline, from the "
        "beginning of the iteration until the last token of a sequence.",
        better="lower",
        speedup="E2EL speed-up",
        table=LATENCY,
        factor=1000,
        of="requests",
    ),
    Number(
        name=P99,
        unit="s",
        header="E2EL p99 ms",
        definition="99th percentile of E2EL in a launch, mean over launches. Only if every valid launch has enough "
        "independent requests, at least 662, as MLPerf requires.",
        better="lower",
        speedup="E2EL p99 speed-up",
        factor=1000,
        of="requests",
    ),
    Number(
        name="ntpot_s",
        unit="s",
        header="NTPOT ms",
        definition="Normalised time per output token: TTFT / output tokens + TPOT.",
        table=LATENCY,
        factor=1000,
        of="requests",
        mode="online",
    ),
    Number(
        name="goodput_requests_per_s",
        unit="requests/s",
        header="goodput/s",
        definition="Successful requests per second that met every limit of `slo`. A request with one output "
        "token has no TPOT, and counts as within the TPOT limit.",
        better="higher",
        speedup="goodput speed-up",
        table=THROUGHPUT,
        digits=3,
        of="requests",
        mode="online",
    ),
    Number(
        name="in_flight",
        unit="",
        header="in flight",
        definition="Mean number of requests in flight at the client: the sum of E2EL, divided by the time. "
        "Counts successful requests, and cut requests until they were cut.",
        table=RATES,
        digits=3,
        of="requests",
        mode="online",
    ),
    Number(
        name="offered_requests_per_s",
        unit="requests/s",
        header="offered/s",
        definition="Requests due per second, if requests arrive at a rate.",
        of="requests",
        mode="online",
    ),
    Number(
        name="kept_up_share",
        unit="share",
        header="achieved %",
        definition="If requests arrive at a rate: the rate of the answers in the second half of the arrivals, as a "
        "share of the arrival rate, from the growth of latencies. It is 100 if they grew no more than by chance and no "
        f"request failed. From {plain_percent(KEPT_UP)} on, the server keeps up, and the load determines the "
        "throughput; the conclusion says where that is undecided.",
        table=THROUGHPUT,
        factor=100,
        digits=3,
        of="requests",
        mode="online",
    ),
    Number(
        name="send_delay_s",
        unit="s",
        header="send delay ms",
        definition="Delay between the time at which a request was due and the time at which it was sent.",
        factor=1000,
        of="requests",
        mode="online",
    ),
    Number(
        name="tokens_per_piece",
        unit="tokens/piece",
        header="tokens per piece",
        definition="Output tokens per piece of a streamed answer: 1 if each token arrived separately.",
        of="requests",
        mode="online",
    ),
    Number(
        name="in_flight_most",
        unit="",
        header="most in flight",
        definition="Maximum number of requests in flight in any launch.",
        across="max",
        table=RATES,
        digits=0,
        of="requests",
        mode="online",
    ),
    Number(
        name="failed_share",
        unit="share",
        header="failed %",
        definition="Failed requests, as a share of all sent requests. No latency includes them.",
        table=THROUGHPUT,
        factor=100,
        digits=3,
        of="requests",
        mode="online",
    ),
    Number(
        name="incomplete_share",
        unit="share",
        header="cut %",
        definition="Requests in flight, or due but not yet sent, at the end of the load's time, as a share of all due "
        "requests. They are not failures. No latency includes them, but the tokens received before the end count.",
        table=THROUGHPUT,
        factor=100,
        digits=3,
        of="requests",
        mode="online",
    ),
    Number(
        name="send_delay_most_s",
        unit="s",
        header="longest send delay ms",
        definition="Longest delay between the time at which a request was due and the time at which it was sent.",
        across="max",
        factor=1000,
        of="requests",
        mode="online",
    ),
)
