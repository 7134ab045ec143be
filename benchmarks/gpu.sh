#!/usr/bin/env bash
# Builds for this machine's GPU, tests and benchmarks on it, within ten minutes and without a network.
#
#   PYTHON  the interpreter with torch (python3)          OUT  where logs and records go (benchmarks/results)
#
# Every stage has a time limit and writes as it goes; one that fails does not stop the next. Nothing is installed into the
# interpreter: the package goes to build/gpu/site.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-benchmarks/results}
TOTAL=${TOTAL:-585}
SITE=$PWD/build/gpu/site
mkdir -p "$OUT" "$SITE"
OUT=$(cd "$OUT" && pwd)
failed=()

# stage NAME SECONDS COMMAND...: at most that long, and never past the ten minutes
stage() {
    local name=$1 limit=$2 left=$((TOTAL - SECONDS)) start=$SECONDS code
    shift 2
    [ "$left" -lt "$limit" ] && limit=$left
    printf '\n== %s (at most %s s)\n' "$name" "$limit"
    if [ "$limit" -lt 5 ]; then
        echo "no time left"
        failed+=("$name")
        return
    fi
    timeout -k 5 "$limit" "$@" 2>&1 | tee "$OUT/gpu-$name.log"
    code=${PIPESTATUS[0]}
    [ "$code" -eq 124 ] && echo "stopped at its time limit"
    [ "$code" -eq 0 ] || failed+=("$name")
    printf '== %s: exit %s after %s s\n' "$name" "$code" "$((SECONDS - start))"
}

capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ')
if [ -z "$capability" ]; then
    echo "make gpu: nvidia-smi shows no GPU on this machine" >&2
    exit 1
fi
# sm_90a: what Hopper's own instructions need; every other chip runs the kernels of its plain number
[ "$capability" = 90 ] && capability=90a
export NEUROKERN_CUDA=ON NEUROKERN_CUDA_ARCHS=$capability
export PYTHONPATH=$SITE PYTHONUNBUFFERED=1 CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-$(nproc)}

stage build 240 "$PYTHON" -m pip install -v --no-build-isolation --no-deps --no-index --upgrade --target "$SITE" \
    -Cbuild-dir=build/gpu/cmake .
parallel=$("$PYTHON" -c 'import importlib.util as u; print("-n 4" if u.find_spec("xdist") else "")')
stage info 30 "$PYTHON" -c "from neurokern.cli.info import run; run()"
stage bench 180 "$PYTHON" -m neurokern.bench --device cuda --minutes 2.5 --json "$OUT/gpu.jsonl"
# the emulator's instruction tests once more, each launch repeated on the GPU and compared; a line of the record each
export NEUROKERN_SNIPPETS=$OUT/gpu-snippets.jsonl
rm -f "$NEUROKERN_SNIPPETS"
# 2,040 texts, which the driver compiles (so ptxas need not), by guess in 10 to 50 ms each, beside 25 s of Python: for one process
# 45 to 130 s, for four a quarter of it
# shellcheck disable=SC2086  (several words, or none)
stage snippets 120 env NEUROKERN_PTXAS= "$PYTHON" -m pytest $parallel -q -m gpu tests/test_emulator_*.py
[ -s "$NEUROKERN_SNIPPETS" ] && "$PYTHON" -m neurokern.testing.twins "$NEUROKERN_SNIPPETS"
# shellcheck disable=SC2086
stage test 300 "$PYTHON" -m pytest $parallel -q -m "gpu and not large" --ignore-glob='*/test_emulator_*' tests

if [ ${#failed[@]} -gt 0 ]; then
    echo "make gpu: failed: ${failed[*]} (logs in $OUT)"
    exit 1
fi
echo "make gpu: all stages passed in $SECONDS s (logs and records in $OUT)"
