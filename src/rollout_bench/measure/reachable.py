"""Whether endpoints and the model hub answer, asked before anything is measured. Run it with the engine's own Python.

As a command it reads a `Places` as JSON and prints the problems found, a JSON list of [problem, remedy].
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec

from rollout_bench.contracts.load import Places
from rollout_bench.core.errors import UserError
from rollout_bench.measure.server.session import Connection, connection_errors, headers_of, identity
from rollout_bench.measure.server.stream import Target

ANSWERS_S = 10.0
"""Time in which the hub answers, in seconds."""


def problems_of(places: Places) -> Iterator[UserError]:
    """Yield a problem for each server and model that cannot be used."""
    for endpoint in places.endpoints:
        target = Target(endpoint.url, endpoint.model, {}, endpoint.verify_tls, {})
        try:
            with connection_errors(endpoint.url):
                identity(Connection(replace(target, headers=headers_of(endpoint))), token_ids=False)
        except UserError as error:
            yield error
    if os.environ.get("VLLM_USE_MODELSCOPE", "").lower() in ("1", "true"):
        return  # another hub, whose models the engine loads with another library
    if places.hub and find_spec("huggingface_hub") is None:
        return  # no vLLM is there either, which is told of by itself
    for model in places.hub:
        if (problem := _hub_problem(model)) is not None:
            yield problem


def _hub_problem(model: str) -> UserError | None:
    """Return why the engine could not load the hub's `model`; None if the hub or its cache here has it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if isinstance(try_to_load_from_cache(model, "config.json"), str):
        return None
    try:
        get_hf_file_metadata(hf_hub_url(model, "config.json"), timeout=ANSWERS_S)
    except GatedRepoError:
        remedy = "accept its terms on its page, and set HF_TOKEN to a token of that account"
        return UserError(f"hub:{model}: the model is gated, and this machine may not read it", remedy)
    except RepositoryNotFoundError:
        return UserError(f"hub:{model}: the hub has no such model, or it is private", "correct the id, or set HF_TOKEN")
    except EntryNotFoundError:
        return UserError(f"hub:{model}: has no config.json, so vLLM cannot load it", "name another model")
    except HfHubHTTPError as error:
        return UserError(f"hub:{model}: the hub answers {error}", "try again later, or name a folder with the model")
    except Exception as error:
        remedy = "download the model where the hub can be reached, and name its folder in model_settings"
        return UserError(f"hub:{model}: the hub cannot be reached: {type(error).__name__}", remedy)
    return None


def main() -> None:
    """Print the problems of the places on standard input."""
    places = Places.model_validate_json(sys.stdin.read())
    print(json.dumps([[error.problem, error.remedy] for error in problems_of(places)]))


if __name__ == "__main__":
    main()
