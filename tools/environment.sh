# Sourced by tools/quickstart, tools/test and tools/check: finds a Python and keeps .venv in order. POSIX sh.
#
# The caller has set ROOT to the repository root and is in it. VENV to NEWEST are the current stack's; use_inf1 changes
# them to the other one's.

VENV="$ROOT/.venv"
CONSTRAINTS=tools/constraints-current.txt
DEMO=examples/demo-checkpoint
OLDEST=3.11
NEWEST=3.13

INF1_PYTHONS=${INF1_PYTHONS:-3.8 3.10}
# The release that every AWS tutorial pins; on Python 3.8 what is traced is tested with it too.
OLD_TRANSFORMERS=4.6.0
OLD_FOLDER="$ROOT/.venv-inf1-3.8/transformers-$OLD_TRANSFORMERS"
INF1_TRACING_TESTS="tests/backends/neuron/test_neuron.py tests/backends/neuron/test_pain_points.py tests/checkpoint/test_reference_model.py"

say() {
    printf '%s\n' "$*" >&2
}

die() { # message, what to do next
    say "error: $1"
    if [ -n "${2:-}" ]; then say "  try: $2"; fi
    exit 1
}

python_version() {
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null
}

is_supported() {
    "$1" -c 'import sys
def pair(text): return tuple(map(int, text.split(".")))
sys.exit(not pair(sys.argv[1]) <= sys.version_info[:2] <= pair(sys.argv[2]))' "$OLDEST" "$NEWEST" 2>/dev/null
}

# Sets BASE_PYTHON to a supported interpreter: $PYTHON if that is set, else the first on the path.
find_python() {
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11 python; fi
    seen=
    for candidate in "$@"; do
        version=$(python_version "$candidate") || continue
        if is_supported "$candidate"; then
            BASE_PYTHON=$candidate
            # If .venv is active, that is the Python it was made from: it is about to be replaced.
            case $(command -v "$candidate") in
            "$VENV"/*) BASE_PYTHON=$("$candidate" -c 'import sys; print(sys._base_executable)') ;;
            esac
            return
        fi
        seen="$seen $candidate is $version;"
    done
    if [ -n "${PYTHON:-}" ] && [ -z "$seen" ]; then
        die "PYTHON=$PYTHON does not run" "set PYTHON to a Python $OLDEST - $NEWEST"
    fi
    die "no supported Python:${seen:- none was found on the path;} this needs $OLDEST - $NEWEST" \
        "install one of them, or name it: PYTHON=/path/to/python3.11 $0"
}

# Prints the path of a Python of the version given (3.8): pythonX.Y on the path, else one of pyenv's.
python_of() {
    pyenv_root=$(pyenv root 2>/dev/null) || pyenv_root=${PYENV_ROOT:-${HOME:-}/.pyenv}
    for candidate in "python$1" "$pyenv_root/versions/$1".*/bin/python; do
        # pyenv's own pythonX.Y does not run unless that version is switched on: seeing it is not enough.
        case $(python_version "$candidate") in
        "$1".*)
            command -v "$candidate"
            return
            ;;
        esac
    done
    return 1
}

# From here on the environment is the inf1 stack's: version, path of the Python.
use_inf1() {
    VENV="$ROOT/.venv-inf1-$1"
    CONSTRAINTS=tools/constraints-inf1.txt
    OLDEST=$1
    NEWEST=$1
    PYTHON=$2
}

# transformers before 4.16 wants a tokenizers that neuronbert does not: beside the environment, without dependencies.
ensure_old_transformers() {
    if [ -f "$OLD_FOLDER/.complete" ]; then return; fi
    say "installing transformers $OLD_TRANSFORMERS into $OLD_FOLDER"
    rm -rf "$OLD_FOLDER"
    "$VENV/bin/python" -m pip install --disable-pip-version-check -qq --no-deps --target "$OLD_FOLDER" \
        "transformers==$OLD_TRANSFORMERS" sacremoses==0.1.1 >&2 ||
        die "pip could not install transformers $OLD_TRANSFORMERS" "read pip's message above; then run $0 again"
    touch "$OLD_FOLDER/.complete"
}

# A virtual environment that was moved or copied still runs, but its scripts point at the old place.
venv_works() {
    is_supported "$VENV/bin/python" || return 1
    grep -qF "$VENV" "$VENV/bin/activate" 2>/dev/null || return 1
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || return 1
    [ -z "${PYTHON:-}" ] || [ "$(python_version "$PYTHON")" = "$(python_version "$VENV/bin/python")" ]
}

make_venv() {
    find_python
    say "making ${VENV##*/} with $BASE_PYTHON ($(python_version "$BASE_PYTHON"))"
    rm -rf "$VENV"
    if "$BASE_PYTHON" -m venv "$VENV" >/dev/null 2>&1; then return; fi
    # Debian and Ubuntu leave ensurepip out of python3 unless python3-venv is installed.
    say "  $BASE_PYTHON has no working ensurepip: pip comes from elsewhere"
    rm -rf "$VENV"
    "$BASE_PYTHON" -m venv --without-pip "$VENV" >&2 || no_venv
    borrow_pip || download_pip || no_venv
}

no_venv() {
    rm -rf "$VENV"
    package="python$("$BASE_PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    die "$BASE_PYTHON cannot make a virtual environment with pip in it" \
        "sudo apt install $package, or your system's package for venv and ensurepip"
}

# Any pip >= 22.3 can install into another environment, and a pip wheel can be run as it lies.
borrow_pip() {
    for other in "$BASE_PYTHON" python3 python3.13 python3.12 python3.11 python3.10 python3.9; do
        "$other" -m pip --python "$VENV/bin/python" install -qq pip >/dev/null 2>&1 && return
    done
    for wheel in /usr/share/python-wheels/pip-*.whl; do
        "$VENV/bin/python" "$wheel/pip" install -qq pip >/dev/null 2>&1 && return
    done
    return 1
}

# get-pip.py is what pip's own documentation gives for a Python without ensurepip.
download_pip() {
    say "  downloading pip"
    "$VENV/bin/python" -c 'import sys, urllib.request
urllib.request.urlretrieve("https://bootstrap.pypa.io/get-pip.py", sys.argv[1])' "$VENV/get-pip.py" 2>/dev/null &&
        "$VENV/bin/python" "$VENV/get-pip.py" -qq
}

# What is installed follows from these files, the place and the Python: a stamp of them, written last, says it is done.
stamp_text() {
    cat setup.cfg setup.py "$DEMO"/setup.* "$CONSTRAINTS" neuronbert/__init__.py | cksum
    printf '%s\n' "$VENV"
    python_version "$VENV/bin/python"
}

is_installed() {
    [ "$(cat "$VENV/.installed-$1" 2>/dev/null)" = "$(stamp_text)" ] && "$VENV/bin/neuronbert" --version >/dev/null 2>&1
}

pip_install() {
    # Modules are compiled when they are first imported, unless that is off: most of those that pip would compile never are.
    if [ -z "${PYTHONDONTWRITEBYTECODE:-}" ]; then set -- --no-compile "$@"; fi
    if [ -t 2 ]; then set -- --progress-bar on "$@"; else set -- -qq --progress-bar off "$@"; fi
    "$VENV/bin/python" -m pip install --disable-pip-version-check -c "$CONSTRAINTS" "$@" >&2
}

# Makes .venv hold this checkout with the extras named ($1), whatever state an earlier run left it in.
ensure_environment() {
    venv_works || make_venv
    if is_installed "$1"; then return; fi
    say "installing neuronbert[$1] into ${VENV##*/} (a few minutes the first time)"
    rm -f "$VENV"/.installed-*
    pip_install -e "$DEMO" -e ".[$1]" || die "pip could not install neuronbert[$1]" "read pip's message above; then run $0 again"
    "$VENV/bin/neuronbert" --version >/dev/null || die "neuronbert was installed and does not start" "rm -rf ${VENV##*/} && $0"
    stamp_text >"$VENV/.installed-$1"
    if [ "$1" = dev ]; then stamp_text >"$VENV/.installed-compile,serve,sign"; fi # dev includes both
}
