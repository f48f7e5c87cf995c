#!/usr/bin/env bash
# The whole check of a machine with a GPU, within 8 minutes: build, tests, sanitizers, benchmarks.
#
#   bash bench/gpu_check.sh           OUT=folder for the results, default bench/results
#
# Needs nvcc and a python3 with torch >= 2.11; no network. Each stage has a time limit of its own
# and the rest goes on after a failure; what failed is named at the end, with exit status 1. What a
# machine lacks (cmake, pytest, pydantic, compute-sanitizer) is said, and what needs it is skipped. Leaves
# <device>.json and <device>.md in $OUT, and the stages' output in gpu_check.log.
#
#   DRY=1   walks through this script where kernels do not run (tests/cuda_host): nothing is built, a program that does
#           nothing stands for the kernels' tests, pytest collects, and of the benchmarks one runs that needs no kernel
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
OUT=${OUT:-bench/results}
BUILD=${BUILD:-build/gpu_check}
LIMIT=${LIMIT:-470}     # seconds for everything
RESERVE=${RESERVE:-150} # of them for the benchmarks at the end
mkdir -p "$OUT" "$BUILD"
LOG=$BUILD/gpu_check.log
STAGES=$BUILD/stages.jsonl
: >"$LOG"
: >"$STAGES"
failed=()
jobs=$(nproc)
DRY=${DRY:-}
[ -n "$DRY" ] && echo "DRY: no kernel is built or run; ok means that the script gets there, and nothing else"
export PYTHONUNBUFFERED=1
export HIDDENNET_COMMIT=${HIDDENNET_COMMIT:-$(git rev-parse --short=10 HEAD 2>/dev/null || echo unknown)}

note() { # stage status seconds [what it said last]
  local said
  said=$(printf '%s' "${4:-}" | tr -cd '[:print:]' | cut -c 1-120 | sed 's/[\\"]/\\&/g')
  printf '{"stage": "%s", "status": "%s", "seconds": %d, "said": "%s"}\n' \
    "$1" "$2" "$3" "$said" >>"$STAGES"
  printf '%-20s %s, %d s  %s\n' "$1" "$2" "$3" "${4:-}"
}

left() { echo $((LIMIT - SECONDS)); }

stage() { # name limit command...: run it, its output into the log
  local name=$1 limit=$2 begun=$SECONDS status=ok code=0 part=$BUILD/stage.log
  shift 2
  [ "$limit" -gt $(($(left) - RESERVE)) ] && limit=$(($(left) - RESERVE))
  if [ "$limit" -le 0 ]; then
    note "$name" "not begun: no time left" 0
    failed+=("$name")
    return 1
  fi
  timeout -k 5 "$limit" "$@" >"$part" 2>&1 || code=$?
  { echo "=== $name: $*"; cat "$part"; } >>"$LOG"
  if [ "$code" -eq 124 ] || [ "$code" -eq 137 ]; then
    status="FAILED: not done after $limit s"
  elif [ "$code" -ne 0 ]; then
    status="FAILED: exit status $code"
  fi
  note "$name" "$status" $((SECONDS - begun)) "$(tail -n 1 "$part")"
  if [ "$code" -ne 0 ]; then
    failed+=("$name")
    tail -n 25 "$part"
  fi
  return "$code"
}

have() { command -v "$1" >/dev/null 2>&1; }
has_module() { "$PYTHON" -c "import $1" >/dev/null 2>&1; }

if ! has_module torch; then
  echo "gpu_check: expected a $PYTHON with torch >= 2.11, got none; name one with PYTHON=" >&2
  exit 2
fi
if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "gpu_check: expected a GPU that torch sees, got none" >&2
  exit 2
fi
capability=$("$PYTHON" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')
if [ "${capability%.*}" -lt 8 ]; then
  echo "gpu_check: expected a GPU of compute capability 8.0 or newer, got $capability" >&2
  exit 2
fi
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-$capability}
export MAX_JOBS=${MAX_JOBS:-$jobs}
"$PYTHON" -c 'import torch; print(torch.cuda.get_device_name(), "torch", torch.__version__)'
for module in pydantic yaml safetensors numpy torchvision sklearn nvtx; do
  has_module "$module" || echo "$module is missing: what needs it is skipped below, by name"
done

# the extension for Python, and at the same time the kernels' own tests as CUDA programs
if [ -z "$DRY" ] && have cmake; then
  generator=()
  go_on=()
  have ninja && generator=(-G Ninja) && go_on=(-- -k 0)
  rm -f "$BUILD/built"
  set -m # a process group of its own, to be ended as a whole
  (
    cmake -S . -B "$BUILD/cpp" "${generator[@]}" -DHN_GPU_TESTS=ON \
      -DHN_GPU_ARCH="sm_${capability/./}" &&
      cmake --build "$BUILD/cpp" -j "$jobs" --target gpu_tests "${go_on[@]}"
    echo $? >"$BUILD/built"
  ) >"$BUILD/kernel_tests.log" 2>&1 &
  builder=$!
  set +m
fi
if [ -n "$DRY" ]; then
  stage "build extension" 220 "$PYTHON" -m hiddennet.env
else
  stage "build extension" 220 env HIDDENNET_CUDA=1 "$PYTHON" setup.py build_ext --inplace
fi
if [ -n "$DRY" ]; then
  note "build kernel tests" "skipped: DRY" 0
elif have cmake; then
  # shellcheck disable=SC2016
  stage "build kernel tests" 120 bash -c \
    'until [ -s "$0/built" ]; do sleep 1; done; cat "$0/kernel_tests.log"; exit "$(cat "$0/built")"' "$BUILD"
  kill -- "-$builder" 2>/dev/null # nothing may run beside the benchmarks
else
  note "kernel tests" "skipped: no cmake here" 0
fi

# every program by itself, side by side; xargs fails if one does
each() { # stage limit prefix...: run the prefix with each kernel test
  local name=$1 limit=$2 built=()
  shift 2
  for program in ${DRY:+"$(type -P true)"} "$BUILD"/cpp/test_*_gpu; do
    [ -x "$program" ] && built+=("$program")
  done
  if [ "${#built[@]}" -eq 0 ]; then
    note "$name" "skipped: no kernel test was built" 0
    return 0
  fi
  # shellcheck disable=SC2016
  printf '%s\0' "${built[@]}" >"$BUILD/programs"
  stage "$name" "$limit" xargs -0 -P 8 -n 1 -a "$BUILD/programs" env "$@"
}
each "kernel tests" 60
if has_module pytest; then
  workers=()
  has_module xdist && workers=(-n 4)
  [ -n "$DRY" ] && workers=(--collect-only tests/ops)
  stage "pytest -m cuda" 130 "$PYTHON" -m pytest -m cuda -q "${workers[@]}"
else
  note "pytest -m cuda" "skipped: no pytest here" 0
fi
# on PATH, or beside nvcc, which may itself be a wrapper script
toolkit=$("$PYTHON" -c 'from build_tools.cuda_toolkit import find_toolkit; print(find_toolkit().home or "")')
sanitizer=$(command -v compute-sanitizer || command -v "$toolkit/bin/compute-sanitizer")
if [ -n "$sanitizer" ]; then
  each "memcheck" 60 "$sanitizer" --tool memcheck --error-exitcode 9
  each "racecheck" 60 "$sanitizer" --tool racecheck --error-exitcode 9
else
  note "compute-sanitizer" "skipped: neither on PATH nor in ${toolkit:-a toolkit}/bin" 0
fi

# the benchmarks print their own tables, and keep what they have when time runs out; bench.step and bench.step_search
# hold training steps against the dense ones as CUDA graphs
echo "benchmarks, $(left) s left"
few=()
[ -n "$DRY" ] && few=(--quick --only artifact)
"$PYTHON" -m bench --device cuda --out "$OUT" --stages "$STAGES" --timeout 100 \
  --deadline "$(left)" "${few[@]}" 2>&1 | tee -a "$LOG"
[ "${PIPESTATUS[0]}" -ne 0 ] && failed+=("benchmarks")

[ -n "${OUT:-}" ] && [ "$OUT" != bench/results ] && cp "$LOG" "$OUT/gpu_check.log"
echo "all of it took $SECONDS s; results in $OUT, output in $LOG"
if [ "${#failed[@]}" -ne 0 ]; then
  printf 'FAILED: %s\n' "${failed[@]}" >&2
  exit 1
fi
