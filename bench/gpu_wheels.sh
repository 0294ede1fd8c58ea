#!/bin/sh
# Fetch what bench/gpu.sh needs beside torch, transformers, sentence-transformers, tokenizers, safetensors, scikit-learn,
# scipy, pyarrow, fsspec, rich and threadpoolctl: wheels for Python 3.12 on Linux (x86-64), into .wheels/, which git
# ignores. Versions are those of constraints.txt.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
names=$(grep -E '^(faiss-cpu|orjson|zstandard)==' "$root/constraints.txt")
platforms=
for glibc in 2_34 2_31 2_28 2_27 2_24 2_17; do
    platforms="$platforms --platform manylinux_${glibc}_x86_64"
done
rm -rf "$root/.wheels"
# shellcheck disable=SC2086
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    $platforms --platform manylinux2014_x86_64 -d "$root/.wheels" $names
du -sh "$root/.wheels"
