# Sourced: installs Debian's packages where something that is needed is missing.

# install_packages WHO NAME...: on other systems WHO says what is missing, and the script ends.
install_packages() {
    local who=$1
    shift
    if (($# == 0)); then return; fi
    if ! command -v apt-get >/dev/null; then
        echo "$who: please install: $* (Debian's names)" >&2
        exit 1
    fi
    printf '\n== installing %s\n' "$*"
    local as_root=()
    if ((EUID != 0)); then as_root=(sudo); fi
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}
