#!/usr/bin/env bash
# Checks and measures on a machine with an NVIDIA GPU, from a bare checkout: nothing is installed
# and no network is needed. Python 3.11 or later, torch with CUDA and NVRTC, pytest and numpy.
#
#   benchmarks/on_gpu.sh OUT [PART...]     parts, and their order: compile tests kernels train
#                                          gsplat splat splat4d lego lego-splats sanitizer
#                                          racecheck fuzz
#
# Every part has its own time limit, and a part that fails or is missing something does not stop
# the others; all of them take longer than the limit of the whole, so name parts in several calls.
# OUT receives at most nine flat files; a short table is printed last.
#
#   LUMIGRAPH_ON_GPU_SECONDS   limit of the whole (520)
#   LUMIGRAPH_TEST_DATA        folder that holds nerf_synthetic_lego, for the parts lego*
#   LUMIGRAPH_TESTS            what the part tests runs (tests)
#   LUMIGRAPH_FUZZ_COUNT       cases of the part fuzz (1000)
#   TORCH_EXTENSIONS_DIR       where gsplat is built and found again (/tmp/torch_extensions)
#   .whl/                      wheels of missing packages, in the checkout (optional)
#   LUMIGRAPH_WHEELS           folder that they are installed into unless it is filled already; name
#                              one that stays, or gsplat is built again by every call
set -uo pipefail

if [ $# -lt 1 ]; then
  sed -n '2,20s/^# \{0,1\}//p' "$0"
  exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
shift
all="compile tests kernels train gsplat splat splat4d lego lego-splats sanitizer racecheck fuzz"
parts=" ${*:-$all} "
for name in $parts; do
  [[ " $all " == *" $name "* ]] || { echo "on_gpu.sh: no part $name, use $all"; exit 2; }
done
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
limit=${LUMIGRAPH_ON_GPU_SECONDS:-520}
log="$out/on_gpu.log"
: >"$log"
SECONDS=0

# ---- the package without an installation

say() { printf '%s\n' "$*" | tee -a "$log"; }

wheels=${LUMIGRAPH_WHEELS:-$work/wheels}
mkdir -p "$work/site" "$wheels"
if [ -z "$(ls "$wheels")" ]; then
  for wheel in .whl/*.whl; do
    [ -f "$wheel" ] || continue
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$wheels" "$wheel" \
      >>"$log" 2>&1 || say "$wheel could not be installed, see on_gpu.log"
  done
fi
python3 benchmarks/link_package.py "$work/site" >>"$log" 2>&1 || say "linking the package failed"
export PYTHONPATH="$work/site:$wheels${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
export LUMIGRAPH_CACHE="$work/cache"
export TORCH_EXTENSIONS_DIR="${TORCH_EXTENSIONS_DIR:-/tmp/torch_extensions}"
unset LUMIGRAPH_BACKEND

python3 - <<'PYTHON' 2>&1 | tee -a "$log"
import importlib.util, os, platform
wanted = {
    "needed": "numpy torch pytest",
    "for training and evaluation": "PIL imageio yaml safetensors torchmetrics",
    "for data": "plyfile scipy",
    "for commands": "tyro rich",
    "for reports": "matplotlib jinja2",
    "peers": "nerfacc tinycudann gsplat",
}
print("python", platform.python_version(), "cores", os.cpu_count())
for use, names in wanted.items():
    missing = [name for name in names.split() if importlib.util.find_spec(name) is None]
    if missing:
        print(f"missing {use}: {', '.join(missing)}")
if importlib.util.find_spec("torch"):
    import torch
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print("torch", torch.__version__, "CUDA", torch.version.cuda, gpu)
import lumigraph
print("lumigraph", lumigraph.__version__, "from a linked checkout")
PYTHON
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,memory.total --format=csv \
  >>"$log" 2>&1

# ---- parts

declare -a states=()

# part NAME SECONDS LOG COMMAND...: runs the command within its own and the whole time limit
part() {
  local name=$1 most=$2 file=$3 left=$((limit - SECONDS)) begin=$SECONDS code state
  shift 3
  [[ $parts == *" $name "* ]] || return 0
  if [ "$left" -lt 10 ]; then
    states+=("$name: left out, no time")
    return 0
  fi
  [ "$most" -lt "$left" ] || most=$left
  say "== $name (at most $most s)"
  timeout -s INT -k 10 "$most" "$@" >"$work/part.log" 2>&1
  code=$?
  { echo "== $name"; cat "$work/part.log"; } >>"$file"
  tail -n 60 "$work/part.log"
  case $code in
    0) state="done" ;;
    77) state="skipped" ;;
    124 | 137) state="stopped at its limit" ;;
    *) state="FAILED with exit code $code" ;;
  esac
  states+=("$name: $state, $((SECONDS - begin)) s")
  say "== $name: $state, $((SECONDS - begin)) s"
}

have_gpu() { python3 -c "import sys, torch; sys.exit(not torch.cuda.is_available())" 2>/dev/null; }

# bench SUBJECT: the command, or where its argument library is missing the function behind it
bench() {
  if ! have_gpu; then
    echo "bench $1: no GPU here, skipped"
    return 77
  fi
  if python3 -c "import tyro, rich" 2>/dev/null; then
    python3 -m lumigraph bench "$1" --device cuda --out "$work/bench"
  else
    python3 -c "import lumigraph.bench as b; from pathlib import Path; \
b.bench_$1('cuda', out=Path('$work/bench'), on_message=print)"
  fi
  local code=$?
  cp "$work/bench/$1-cuda.json" "$out/" 2>/dev/null
  cat "$work/bench/$1-cuda.md" 2>/dev/null
  return $code
}

tests() {
  have_gpu || { echo "tests: no GPU here, skipped"; return 77; }
  # shellcheck disable=SC2086 # a list of paths
  python3 -m pytest -m gpu ${LUMIGRAPH_TESTS:-tests} -q -p no:cacheprovider --continue-on-collection-errors \
    --durations=8 --tb=short
}

lego() {
  local data="${LUMIGRAPH_TEST_DATA:-}/nerf_synthetic_lego"
  if [ ! -d "$data" ]; then
    echo "lego: LUMIGRAPH_TEST_DATA names no folder with nerf_synthetic_lego, skipped"
    return 77
  fi
  local within=$1
  shift
  python3 benchmarks/lego_gpu.py "$data" --out "$out/lego.json" --within "$within" --runs "$@"
}

# builds what the part splat compares with; gsplat does that on first use
gsplat() {
  have_gpu || { echo "gsplat: no GPU here, skipped"; return 77; }
  python3 -c "import sys, importlib.util as u; sys.exit(u.find_spec('gsplat') is None)" || {
    echo "gsplat: not installed, skipped"
    return 77
  }
  MAX_JOBS=$(nproc) python3 -c "import time; begin = time.monotonic()
from gsplat.cuda._backend import _C
print('gsplat', 'ready' if _C else 'without a compiler', round(time.monotonic() - begin), 's')"
}

# sanitized TOOL COMMAND...: under a tool of compute-sanitizer
sanitized() {
  have_gpu || { echo "sanitizer: no GPU here, skipped"; return 77; }
  local program tool=$1
  shift
  program=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) || {
    echo "sanitizer: compute-sanitizer is not installed, skipped"
    return 77
  }
  # without torch's own allocator every tensor has bounds that the tool knows
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$program" --tool "$tool" --error-exitcode 9 "$@"
}

fuzz() {
  if [ ! -f benchmarks/splat_fuzz.py ]; then
    echo "fuzz: benchmarks/splat_fuzz.py is not there, skipped"
    return 77
  fi
  # once without the tool, which compiles the kernels; then shares side by side: the tool waits much
  local count=${LUMIGRAPH_FUZZ_COUNT:-1000} shares=8 each share code=0 pids=()
  have_gpu && { python3 benchmarks/splat_fuzz.py --device cuda --count "$count" || return; }
  each=$(((count + shares - 1) / shares))
  for ((share = 0; share < shares; share++)); do
    sanitized memcheck python3 benchmarks/splat_fuzz.py --device cuda \
      --first $((share * each)) --count "$each" >"$work/fuzz-$share.log" 2>&1 &
    pids+=($!)
  done
  for ((share = 0; share < shares; share++)); do
    wait "${pids[share]}" || code=$?
    cat "$work/fuzz-$share.log"
  done
  return "$code"
}

export work out
export -f have_gpu bench tests lego gsplat sanitized fuzz

# room SECONDS: what is left of the whole, at most so much
room() {
  local left=$((limit - SECONDS - 15))
  [ "$left" -lt "$1" ] && echo "$left" || echo "$1"
}

part compile 70 "$log" python3 benchmarks/compile_times.py --out "$out/compile.json"
part tests 240 "$out/tests.log" bash -c tests
part kernels 130 "$log" bash -c "bench kernels"
part train 90 "$log" bash -c "bench train"
part gsplat 200 "$log" bash -c gsplat
part splat 150 "$log" bash -c "bench splat"
part splat4d 150 "$log" bash -c "bench splat4d"
within=$(room 240)
part lego "$((within + 5))" "$log" bash -c "lego $within full:10 full:60 small:10 small:60"
within=$(room 220)
part lego-splats "$((within + 5))" "$log" \
  bash -c "lego $within gaussians/full:60 gaussians/small:60"
small="python3 benchmarks/small_operations.py"
part sanitizer 120 "$out/sanitizer.log" bash -c "sanitized memcheck $small"
part racecheck 120 "$out/sanitizer.log" bash -c "sanitized racecheck $small splats splats4d"
part fuzz 240 "$out/sanitizer.log" bash -c fuzz

# ---- summary

say ""
say "== summary after $SECONDS s"
for state in "${states[@]:-}"; do say "$state"; done
python3 benchmarks/summarize_gpu.py "$out" 2>&1 | tee -a "$log"
