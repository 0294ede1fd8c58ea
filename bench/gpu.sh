#!/bin/sh
# What is measured on one GPU, in at most ten minutes: bench/gpu.sh OUT [--tiny] [--part NAME] [--minilm FOLDER]
# Runs the code of this checkout with the Python that is there (PYTHON=...); packages that it lacks come from .wheels/,
# which bench/gpu_wheels.sh fills on a machine with a network. Nothing is fetched here.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
site=
if ! "$python" -c 'import faiss, orjson, zstandard' 2>/dev/null; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$root"/.wheels/*.whl
fi
export PYTHONPATH="$root/src:$root/bench${site:+:$site}${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=true
"$python" "$root/bench/gpu.py" "$@"
