#!/usr/bin/env bash
# Runs every test. What it needs and does not find, it installs on Debian and Ubuntu: a C compiler (ring is partly C and
# assembly, and so is the disk of the power-cut tests), and the mosquitto clients, Python and Node.js, which some tests run as real devices. The MQTT clients for the
# latter two go below target/ (tests/clients/install.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/packages.sh

say() { printf '\n== %s\n' "$*"; }

packages=()
command -v cc >/dev/null || packages+=(gcc libc6-dev)
command -v mosquitto_sub >/dev/null || packages+=(mosquitto-clients)
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3 python3-venv)
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
install_packages tests/run.sh "${packages[@]}"
if ! command -v cargo >/dev/null; then
    echo "tests/run.sh: Rust is missing; install it with rustup (https://rustup.rs) or Debian's rustup package" >&2
    exit 1
fi

say "clients of other languages"
tests/clients/install.sh "${CARGO_TARGET_DIR:-target}/tmp/clients"

say "tests"
# nextest runs each test in a process of its own and is faster, but building it takes longer than it saves: it is used
# where it is there already. cargo test runs the same tests.
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --no-fail-fast "$@"
else
    cargo test --locked --no-fail-fast "$@"
fi
say "documentation tests"
cargo test --locked --doc
