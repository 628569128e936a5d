"""The curl command that sends what batchrun sends, with the key's place in it and never the key."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from batchrun.origins import KeySource


def curl_of(
    url: str, body: dict[str, Any], source: KeySource, *, direct: bool, proxy: str | None = None,
    ca_file: Path | None = None,
) -> str:  # fmt: skip
    """Write the command for bash, on one line. `direct`: proxy variables are set, which batchrun does not follow.

    `proxy` is the one that it does follow, as it may be shown.
    """
    words = ["curl", "-sS"]
    if proxy:
        words += ["--proxy", shlex.quote(proxy)]
    elif direct:
        words += ["--noproxy", "'*'"]
    if ca_file:
        words += ["--cacert", shlex.quote(str(ca_file))]
    if set(url) & set("{}[]"):
        words.append("--globoff")
    if body.get("stream"):
        words.append("-N")
    words.append(shlex.quote(url))
    if source.kind != "none":
        words += ["-H", f'"Authorization: Bearer {source.in_shell()}"']
    # ASCII alone, so that neither a terminal nor a locale can change it.
    words += ["-H", "'Content-Type: application/json'", "-d", shlex.quote(json.dumps(body))]
    return " ".join(words)
