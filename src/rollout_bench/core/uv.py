"""uv takes packages from where pip does. Only the standard library is imported: nothing else may be installed yet."""

import ast
import subprocess
from collections.abc import Mapping
from pathlib import Path

UV_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "no-index": "UV_OFFLINE",
    "cert": "SSL_CERT_FILE",
}
"""Option of pip -> variable by which uv has the same."""


def as_pip(python: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` with the variables by which uv takes packages from where pip of `python` does.

    uv does not read pip's configuration. Variables of uv that are set already win.
    """
    listed = subprocess.run(
        [python, "-m", "pip", "config", "list"], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    options: dict[str, str] = {}
    for line in listed.stdout.splitlines():  # variables come before files
        name, _, value = line.partition("=")
        options.setdefault(name.rpartition(".")[2], " ".join(ast.literal_eval(value).split()))
    settings = {UV_VARIABLES[name]: value for name, value in options.items() if name in UV_VARIABLES}
    if "UV_FIND_LINKS" in settings:
        settings["UV_FIND_LINKS"] = settings["UV_FIND_LINKS"].replace(" ", ",")
    # Like pip, uv shall use any index with the version, not only the first that has the package.
    return {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_NO_CONFIG": "1", **settings, **environment}
