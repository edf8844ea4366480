"""The command inference-perf with the requests of a pass as its data. Runs in its interpreter, in the pass's folder."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inference_perf.apis import CompletionAPIData
from inference_perf.datagen import MockDataGenerator
from inference_perf.main import main_cli


class Sent(CompletionAPIData):  # type: ignore[misc]
    """A completion whose body is given."""

    body: dict[str, Any]

    async def to_request_body(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Return the body as it is, streamed, with the server's count of tokens."""
        return {"stream": True, "stream_options": {"include_usage": True}, **self.body}


def requests(_generator: MockDataGenerator) -> Iterator[Sent]:
    """Yield the requests of the file in order."""
    key = os.environ.get("INFERENCE_PERF_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else None
    for line in Path("requests.jsonl").read_text().splitlines():
        body = json.loads(line)
        yield Sent(prompt=body["prompt"], max_tokens=body["max_tokens"], body=body, headers=headers)


if __name__ == "__main__":
    MockDataGenerator.get_data = requests
    main_cli()
    Path("per_request_lifecycle_metrics.json").rename("report.json")
