#!/usr/bin/env bash
# From a bare Debian 12 or Ubuntu 22.04/24.04 to the `emulab` command; README, Vagrantfile and CI all use this script.
set -euo pipefail
umask 022 # ordinary users must be able to read what root installs here

readonly HOME_DIR=/opt/emulab
readonly VENV=$HOME_DIR/venv # not in the checkout: a VM's synced folder may be unable to hold symbolic links
readonly STAMP=$VENV/installed # written last, so an environment without it is half-made
readonly LOG=$HOME_DIR/bootstrap.log
readonly COMMAND=/usr/local/bin/emulab # a folder that is in sudo's secure_path
readonly PACKAGES=(python3 python3-venv mininet iproute2 nftables iputils-ping ethtool libpcap0.8)
readonly TEST_PACKAGES=(tshark bridge-utils procps shellcheck jq iperf3 containernetworking-plugins iptables golang-go
    golang-github-appc-cni-dev podman crun)
readonly BROWSERS=$HOME_DIR/browsers
readonly USAGE='Usage: ./bootstrap.sh                        install emulab and what it needs
       ./bootstrap.sh run [ARGS...]          install, then: emulab run ARGS...
       ./bootstrap.sh test [PYTEST ARGS...]  install with the test requirements, then run the test suite

Installs system packages by apt, a Python environment in /opt/emulab and the command /usr/local/bin/emulab;
where nothing is missing it installs nothing. Another user than root is asked for root by sudo.
PYTHON=/path/to/python3 chooses the interpreter (3.10 or later; default: /usr/bin/python3).'

say() {
    echo "bootstrap: $1" >&2
}

fail() { # exit code, message
    say "error: $2"
    exit "$1"
}

logged() { # what is being done, command...
    local what=$1
    shift
    "$@" </dev/null >"$LOG" 2>&1 && return
    if [[ ${CI:-} ]]; then cat "$LOG" >&2; fi # a CI machine is gone before anybody could open the log
    fail 3 "$what failed: $(grep -E '^(E|ERROR):' "$LOG" || tail -n 1 "$LOG") (more in $LOG)"
}

become_root() { # arguments of this script
    ((EUID)) || return 0
    command -v sudo >/dev/null || fail 3 "installing needs root, and there is no sudo here: run it as root"
    local kept
    kept=$(compgen -e | grep -xE 'PIP_.*|PYTHON|CI|(http|https|no)_proxy' | paste -sd , || true)
    exec sudo ${kept:+"--preserve-env=$kept"} bash "$0" "$@"
}

install_packages() { # package...
    command -v apt-get >/dev/null || fail 3 "no apt-get here: this script knows Debian and Ubuntu only"
    local installed package missing=()
    # Or under another name: Ubuntu 24.04's libpcap0.8t64 provides libpcap0.8.
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}, ${Provides}\n' | sed -n 's/^installed //p' | tr -s ', ' '\n')
    for package in "$@"; do
        grep -qxF "$package" <<<"$installed" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    say "installing system packages: ${missing[*]}"
    # tshark and needrestart would ask questions; a VM that has just booted may be busy with updates of its own.
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    logged "apt-get update" apt-get update
    logged "apt-get install" apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}"
}

stamp() { # extra: one line that changes whenever the environment has to be made anew
    {
        cat "$repo/setup.cfg" "$repo/pyproject.toml" "$repo/emulab/__init__.py"
        "$python" -ISc 'import sys; print(sys.executable, sys.version)'
        echo "$repo"
    } | sha256sum | sed "s/-/$1/"
}

is_installed() { # extra
    [[ $(readlink "$COMMAND") == "$VENV/bin/emulab" && -x $COMMAND && -e $STAMP ]] || return 1
    [[ $(readlink "$COMMAND-cni") == "$VENV/bin/emulab-cni" && -x $COMMAND-cni ]] || return 1
    # An environment for the tests serves everything else as well.
    [[ $(<"$STAMP") == "$(stamp "$1")" || $(<"$STAMP") == "$(stamp test)" ]] || return 1
    "$VENV/bin/python" -m pip --disable-pip-version-check check &>/dev/null
}

install_environment() { # extra
    "$python" -ISc 'import sys; sys.exit(sys.version_info < (3, 10))' || fail 3 "$python is not Python 3.10 or later"
    local link
    for link in "$COMMAND" "$COMMAND-cni"; do
        [[ -L $link || ! -e $link ]] || fail 3 "$link is there and is not a link to emulab: move it away"
    done
    say "installing emulab from $repo in $VENV"
    rm -rf "$VENV"
    logged "making the environment" "$python" -m venv "$VENV"
    logged "pip install" "$VENV/bin/python" -m pip --disable-pip-version-check install -qq --editable "${repo}[$1]"
    # An ordinary user cannot keep what Python makes of the files here, and would wait for it at every command.
    logged "compiling" "$VENV/bin/python" -m compileall -q "$repo/emulab" "$repo/plugins" "$repo/topologies"
    ln -sfn "$VENV/bin/emulab" "$COMMAND"
    ln -sfn "$VENV/bin/emulab-cni" "$COMMAND-cni" # the CNI plugin
    stamp "$1" >"$STAMP"
    # The user who called sudo, or else any user:
    setpriv --reuid "${SUDO_UID:-65534}" --regid "${SUDO_GID:-65534}" --clear-groups test -r "$repo/setup.cfg" ||
        say "warning: $repo is not readable by ordinary users, so emulab works for root only"
}

install_browser() { # Ubuntu's Chromium is a snap; that of Playwright needs no snapd
    if command -v chromium-headless-shell >/dev/null; then return; fi
    export PLAYWRIGHT_BROWSERS_PATH=$BROWSERS
    if compgen -G "$BROWSERS/chromium*" >/dev/null; then return; fi
    say "installing a browser in $BROWSERS"
    logged "playwright install" "$VENV/bin/playwright" install --with-deps chromium
}

case ${1:-} in
-h | --help)
    echo "$USAGE"
    exit
    ;;
"" | run) extra=run packages=("${PACKAGES[@]}") ;;
test)
    extra=test packages=("${PACKAGES[@]}" "${TEST_PACKAGES[@]}")
    grep -qx ID=ubuntu /etc/os-release || packages+=(chromium-headless-shell)
    ;;
*) fail 2 "unknown command '$1' (known: run, test; see --help)" ;;
esac

become_root "$@"
repo=$(cd -- "$(dirname -- "$0")" && pwd -P)
python=${PYTHON:-/usr/bin/python3}
mkdir -p "$HOME_DIR"
exec {lock}>"$HOME_DIR/lock"
flock "$lock" # two calls at once: the second waits, and then finds everything installed
install_packages "${packages[@]}"
is_installed "$extra" || install_environment "$extra"
[[ $extra != test ]] || install_browser
exec {lock}>&- # or the lab would hold the lock as long as it runs

case ${1:-} in
run) exec "$COMMAND" "$@" ;;
test)
    cd "$repo"
    export PYTHONDONTWRITEBYTECODE= # or each worker would compile all files anew at each start
    # Labs mostly wait: several at a time, and whoever is done early takes over from the others.
    (($# > 1)) || set -- test -n 5 --dist worksteal
    exec "$VENV/bin/pytest" "${@:2}"
    ;;
"") say "emulab is installed: $COMMAND" ;;
esac
