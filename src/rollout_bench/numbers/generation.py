"""Numbers of every mode that generates: throughput, the time of an iteration, energy, and drafts."""

from rollout_bench.numbers.number import Number

THROUGHPUT = "Throughput"
RATES = "Rates"
ENERGY = "Energy"
DRAFTING = "Speculative decoding"
GRAPHS = "Captured graphs"
ROUTING = "Routed experts"

GENERATION = (
    Number(
        name="output_tokens_per_s",
        unit="tokens/s",
        header="output tok/s",
        definition="Output tokens of all measured iterations of a launch, divided by their elapsed time. All n "
        "samples of a prompt count; warm-up iterations do not. Like every column, a mean over valid "
        "launches.",
        better="higher",
        numerator="output_tokens",
        denominator="elapsed_s",
        speedup="speed-up",
        table=THROUGHPUT,
        set_by_load=True,
    ),
    Number(
        name="output_tokens_per_s_per_device",
        unit="tokens/s/device",
        header="tok/s per device",
        definition="Output tok/s divided by the number of devices of a launch: tensor parallel x pipeline "
        "parallel x data parallel size. A CPU counts as one device, because all engines share it; so "
        "does an endpoint.",
        better="higher",
        numerator="output_tokens",
        denominator="device_s",
        speedup="speed-up per device",
        set_by_load=True,
    ),
    # The next four are the same work over the same time, so output_tokens_per_s has their verdict.
    Number(
        name="input_tokens_per_s",
        unit="tokens/s",
        header="input tok/s",
        definition="Like output tok/s, but counts prompt tokens, cached ones included.",
        numerator="prompt_tokens",
        denominator="elapsed_s",
        table=RATES,
    ),
    Number(
        name="total_tokens_per_s",
        unit="tokens/s",
        header="total tok/s",
        definition="Like output tok/s, but counts prompt and output tokens.",
        numerator="total_tokens",
        denominator="elapsed_s",
        table=RATES,
    ),
    Number(
        name="requests_per_s",
        unit="requests/s",
        header="requests/s",
        definition="Like output tok/s, but counts requests to the engine.",
        numerator="requests",
        denominator="elapsed_s",
        table=RATES,
    ),
    Number(
        name="sequences_per_s",
        unit="sequences/s",
        header="sequences/s",
        definition="Like output tok/s, but counts returned sequences (samples).",
        numerator="sequences",
        denominator="elapsed_s",
        table=RATES,
    ),
    Number(
        name="step_time_s",
        unit="s",
        header="iter. s",
        definition="Elapsed time of a measured iteration, from the first request until the last token, in "
        "seconds: the step time of the rollout. Mean over iterations, then over launches.",
        better="lower",
        numerator="elapsed_s",
        speedup="step speed-up",
        table=THROUGHPUT,
        set_by_load=True,
    ),
    Number(
        name="sequence_tokens",
        unit="tokens",
        header="tokens a sequence",
        definition="Output tokens of a sequence, on average.",
        numerator="output_tokens",
        denominator="sequences",
    ),
)

ENERGY_USED = (
    Number(
        name="energy_j_per_token",
        unit="J/token",
        header="J per token",
        definition="Energy of the devices, read around the measured iterations, divided by the output tokens. It "
        "includes the devices' memory, but not the host. For a CPU, it covers packages and memory, "
        "including other processes. In cycles it includes the transitions, in placements the whole steps.",
        better="lower",
        numerator="energy_j",
        denominator="output_tokens",
        speedup="energy gain",
        words=("as energy-efficient", "less energy", "more energy"),
        table=ENERGY,
    ),
    Number(
        name="tokens_per_s_per_w",
        unit="tokens/s/W",
        header="tok/s per W",
        definition="Output tokens per second and watt, equal to tokens per joule: the inverse of J per token.",
        better="higher",
        numerator="output_tokens",
        denominator="energy_j",
        speedup="gain of tok/s per W",
        words=("as energy-efficient", "less energy", "more energy"),
        table=ENERGY,
    ),
    Number(
        name="device_power_w",
        unit="W",
        header="W per device",
        definition="Mean power of a device over the same time.",
        better="lower",
        numerator="energy_j",
        denominator="window_s",
        speedup="power ratio",
        words=("as sparing of power", "less power", "more power"),
        table=ENERGY,
    ),
    Number(
        name="power_limit_share",
        unit="share",
        header="of limit %",
        definition="W per device as a share of the power limit in force.",
        numerator="energy_j",
        denominator="allowed_j",
        table=ENERGY,
        factor=100,
        digits=3,
    ),
)

DRAFTS = (
    Number(
        name="drafts",
        unit="drafts",
        header="drafts",
        definition="Drafts of an iteration, counted per sequence.",
        numerator="drafts",
        table=DRAFTING,
        digits=0,
    ),
    Number(
        name="draft_tokens",
        unit="tokens",
        header="drafted tokens",
        definition="Tokens in the drafts of an iteration.",
        numerator="draft_tokens",
        table=DRAFTING,
        digits=0,
    ),
    Number(
        name="accepted_share",
        unit="share",
        header="accepted %",
        definition="Share of the drafted tokens that the model accepted.",
        numerator="accepted_tokens",
        denominator="draft_tokens",
        table=DRAFTING,
        factor=100,
        digits=3,
    ),
    Number(
        name="tokens_per_draft",
        unit="",
        header="tokens per draft",
        definition="Tokens per step with a draft: the accepted tokens, and one token that the model generates itself.",
        numerator="tokens_of_drafts",
        denominator="drafts",
        table=DRAFTING,
        digits=3,
    ),
    Number(
        name="accepted_length",
        unit="",
        header="accepted length",
        definition="Tokens per step of a sequence after its first token, steps without a draft included: 1 if no "
        "drafted token is accepted.",
        numerator="tokens_of_steps",
        denominator="sequence_steps",
        table=DRAFTING,
        digits=3,
    ),
    Number(
        name="drafted_share",
        unit="share",
        header="with draft %",
        definition="Share of the steps of a sequence after its first token that had a draft. N-grams and suffixes have "
        "one only where the text repeats.",
        numerator="drafts",
        denominator="sequence_steps",
        table=DRAFTING,
        factor=100,
        digits=3,
    ),
)

GRAPHS_USED = (
    Number(
        name="decode_in_graphs_share",
        unit="share",
        header="in graphs %",
        definition="Share of the decode steps that ran in a captured graph. Other steps are started kernel by kernel.",
        numerator="graph_steps",
        denominator="decode_steps",
        table=GRAPHS,
        factor=100,
        digits=3,
    ),
    Number(
        name="graph_padding_share",
        unit="share",
        header="padding %",
        definition="Share of padding in the tokens that these graphs compute: each graph has a fixed number of them.",
        numerator="padding_tokens",
        denominator="padded_tokens",
        table=GRAPHS,
        factor=100,
        digits=3,
    ),
)

ROUTED = (
    Number(
        name="routed_bytes_per_token",
        unit="bytes/token",
        header="bytes per token",
        definition="Bytes of the ids of experts that came back, for a trainer that replays the router, over all prompt "
        "and output tokens.",
        numerator="routed_bytes",
        denominator="total_tokens",
        table=ROUTING,
        digits=3,
    ),
)
