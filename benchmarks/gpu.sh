#!/usr/bin/env bash
# Builds for this machine's GPU, tests and benchmarks on it: one attempt, in at most seven minutes, without a network.
#
#   PYTHON  the interpreter with torch (python3)        OUT     where the eight files go (benchmarks/results)
#   TOTAL   seconds for everything (420); with more, each stage has more     LIMIT  seconds for a stage at most
#   SITE    a folder with the built package: no build   JOBS    processes (all cores)
#   FIRST, TESTS, SNIPPETS   files and options of pytest for these stages      PATIENCE  seconds for a test (45)
#   SUITES  what is benchmarked, in this order          BENCH   options of the benchmark (--quick --minutes 0.4)
#
# Every stage has a time limit and appends to OUT as it goes; one that fails does not stop the next, but for the build.
# Nothing is installed into the interpreter: the package goes to build/gpu/site. Exit status 1: a stage failed; 2: there
# is no GPU, or no build. Under NEUROKERN_REHEARSAL=1 the emulator takes the GPU's place (testing/rehearsal.py).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
PYTHON=${PYTHON:-python3}
TOTAL=${TOTAL:-420}
JOBS=${JOBS:-$(nproc)}
SUITES=${SUITES:-matmul-bf16 attention-backends activation softmax normalization linear-gelu few-rows decode decode-paged
    matmul-f32 attention-masked large activation-backward matmul-f16 attention-f32 tiny}
OUT=${OUT:-benchmarks/results}
mkdir -p "$OUT" || exit 2
OUT=$(cd "$OUT" && pwd)
rm -f "$OUT"/gpu.log "$OUT"/gpu-{build.log,run.jsonl,tests.jsonl,bench.jsonl,ncu.csv,snippets.jsonl,summary.txt}
SPARE=12 # seconds: for a stage that has to be killed, and for the summary

have() { command -v "$1" >/dev/null; }

# stage NAME SECONDS COMMAND...: at most that long, and never past TOTAL
stage() {
    local name=$1 limit=$2 left=$((TOTAL - SECONDS - SPARE)) start=$SECONDS code=75 ended="no time left"
    shift 2
    [ "$TOTAL" -gt 420 ] && limit=$((limit * TOTAL / 420))
    limit=$(printf '%s\n' "$limit" "$left" "${LIMIT:-$limit}" | sort -n | head -n 1)
    if [ "$limit" -gt 2 ]; then
        printf '\n== %s (at most %s s)\n' "$name" "$limit"
        timeout -k 5 -s INT "$limit" "$@" 2>&1
        code=$?
        case $code in
        0) ended=passed ;;
        124 | 137) ended="cut at $limit s" ;;
        *) ended="exit $code" ;;
        esac
    fi
    printf '== %s: %s, %s s\n' "$name" "$ended" "$((SECONDS - start))"
    printf '{"stage": "%s", "exit": %s, "ended": "%s", "seconds": %s}\n' \
        "$name" "$code" "$ended" "$((SECONDS - start))" >>"$OUT/gpu-run.jsonl"
    return "$code"
}

build() {
    SITE=$PWD/build/gpu/site
    mkdir -p "$SITE"
    printf '\n== build (its output: %s)\n' "$OUT/gpu-build.log"
    stage build 240 "$PYTHON" -m pip install -v --no-build-isolation --no-deps --no-index --upgrade --target "$SITE" \
        -Cbuild-dir=build/gpu/cmake . >"$OUT/gpu-build.log"
    local code=$?
    [ "$code" -ne 0 ] && grep -nEi -A3 'error|fatal|not found' "$OUT/gpu-build.log" | tail -n 60
    tail -n 3 "$OUT/gpu-build.log"
    return "$code"
}

# tests NAME SECONDS PYTEST'S ARGUMENTS...
tests() {
    local name=$1 limit=$2
    shift 2
    stage "$name" "$limit" "$PYTHON" -m neurokern.bench.gpu tests --journal "$OUT/gpu-tests.jsonl" \
        --processes "$((JOBS < 12 ? JOBS : 12))" --patience "${PATIENCE:-45}" -- -m "gpu and not large" "$@"
}

main() {
    local capability suite tool first=(tests/test_gpu_first.py) snippets=(tests/test_emulator_*.py) bench
    local every=(tests --ignore-glob='*/test_emulator_*' --ignore=tests/test_gpu_first.py)
    [ -n "${FIRST:-}" ] && read -ra first <<<"$FIRST"
    [ -n "${TESTS:-}" ] && read -ra every <<<"$TESTS"
    [ -n "${SNIPPETS:-}" ] && read -ra snippets <<<"$SNIPPETS"
    read -ra bench <<<"${BENCH---quick --minutes 0.4}"

    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ')
    if [ -z "$capability" ]; then
        echo "make gpu: nvidia-smi shows no GPU on this machine"
        return 2
    fi
    # sm_90a: what Hopper's own instructions need; every other chip runs the kernels of its plain number
    [ "$capability" = 90 ] && capability=90a
    export NEUROKERN_CUDA=ON NEUROKERN_CUDA_ARCHS=$capability CMAKE_BUILD_PARALLEL_LEVEL=$JOBS PYTHONUNBUFFERED=1
    stage environment 40 "$PYTHON" python/neurokern/bench/gpu/environment.py "$OUT/gpu-run.jsonl"
    if [ -z "${SITE:-}" ] && ! build; then
        echo "make gpu: the build failed, so nothing else ran"
        return 2
    fi
    export PYTHONPATH=$SITE${PYTHONPATH:+:$PYTHONPATH}

    tests smallest 60 "${first[@]}"
    tests tests 110 "${every[@]}"
    if have compute-sanitizer; then
        for tool in memcheck racecheck; do
            stage "$tool" 40 compute-sanitizer --tool "$tool" --error-exitcode 9 --report-api-errors no \
                --print-limit 20 "$PYTHON" -m neurokern.bench.gpu launches
        done
    fi
    for suite in $SUITES; do
        stage "bench-$suite" 40 "$PYTHON" -m neurokern.bench --device cuda --suite "$suite" \
            --json "$OUT/gpu-bench.jsonl" "${bench[@]}"
    done
    if have ncu; then
        stage ncu 40 ncu --clock-control none --profile-from-start off --launch-count 16 --csv \
            --log-file "$OUT/gpu-ncu.csv" --section SpeedOfLight --section Occupancy --section LaunchStats \
            "$PYTHON" -m neurokern.bench.gpu launches --large
    fi
    # the emulator's instruction tests once more, each launch repeated on the GPU and compared; the driver compiles them
    export NEUROKERN_SNIPPETS=$OUT/gpu-snippets.jsonl NEUROKERN_PTXAS=
    tests snippets 90 "${snippets[@]}"
    echo
    timeout 30 "$PYTHON" -m neurokern.bench.gpu summary "$OUT" | tee "$OUT/gpu-summary.txt"
}

main 2>&1 | tee -a "$OUT/gpu.log"
code=${PIPESTATUS[0]}
echo "make gpu: exit $code after $SECONDS s (logs and records in $OUT)"
exit "$code"
