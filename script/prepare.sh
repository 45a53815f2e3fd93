# Sourced by the scripts beside it: finds a Python, makes .venv, names or installs Debian packages.
#
#   prepare_venv EXTRAS [PYTHON [DIRECTORY]]   pip-installs netfs (editable) with EXTRAS
#   prepare_packages PROGRAM:PACKAGE ...       installs what is missing (root) or says what to do
#   prepare_test_machine                       the programs that tests run beside netfs

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
unset PYTHONDONTWRITEBYTECODE # as installed: each mount would compile the whole of netfs anew

say() { printf '%s\n' "$*" >&2; }

# The Python of version $1 (such as 3.12): in PATH, or pyenv's. Prints nothing when there is none.
python_of() {
  local candidate
  for candidate in "python$1" "$HOME"/.pyenv/versions/"$1".*/bin/python; do
    if "$candidate" -c "import sys, venv; assert '%d.%d' % sys.version_info[:2] == '$1'" 2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

# A Python that netfs runs on: the machine's own python3 if it is new enough.
any_python() {
  if python3 -c 'import sys; assert sys.version_info >= (3, 11)' 2>/dev/null; then
    command -v python3
    return 0
  fi
  local version
  for version in 3.13 3.12 3.11; do
    python_of "$version" && return 0
  done
  return 1
}

apt_install() {
  say "installing: $*"
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  local log apt=(apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  log=$(mktemp)
  if ! "${apt[@]}" install -y --no-install-recommends "$@" >"$log" 2>&1; then
    if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$@"; } >"$log" 2>&1; then
      tail -n 20 "$log" >&2
      rm -f "$log"
      say "apt-get install $* failed"
      return 1
    fi
  fi
  rm -f "$log"
}

prepare_packages() {
  local missing=() pair
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt_install "${missing[@]}"
  else
    say "missing; as root: apt-get install ${missing[*]}"
    return 1
  fi
}

prepare_test_machine() {
  prepare_packages sshd:openssh-server ssh:openssh-client sshfs:sshfs fusermount3:fuse3 \
    fio:fio rsync:rsync sqlite3:sqlite3 git:git cc:gcc make:make setfattr:attr setfacl:acl \
    ip:iproute2 nft:nftables nsenter:util-linux setpriv:util-linux ps:procps \
    groff:groff-base || say "tests that need them will fail and name them"
  prepare_packages automount:autofs systemd-analyze:systemd dockerd:docker.io \
    docker-compose:docker-compose debootstrap:debootstrap ||
    say "tests of deploy/ that need them will fail and name them"
  prepare_packages proftpd:proftpd-mod-crypto dropbear:dropbear-bin tinysshd:tinysshd \
    mysecureshell:mysecureshell /usr/libexec/gesftpserver:gesftpserver ||
    say "tests on servers that are not OpenSSH's will fail and name them"
  if [ "$(id -u)" = 0 ] && ! echo '#include <stdio.h>' | cc -E - >/dev/null 2>&1; then
    apt_install libc6-dev || say "tests that compile C will fail"
  fi
}

prepare_venv() {
  local extras=$1 python=${2:-} directory=${3:-.venv} stamp log have
  if [ -z "$python" ]; then
    python=$(any_python) || {
      prepare_packages python3:python3 python3.11:python3-venv || return 1
      python=$(any_python) || { say "Python 3.11 or newer is needed"; return 1; }
    }
  fi
  # What is there already is kept if it has these extras (dev has all) for the same pyproject.toml.
  for have in "$extras" dev; do
    stamp=$("$python" -c 'import sys; print(sys.version)'; cat pyproject.toml; printf '%s' "$have")
    if [ -x "$directory/bin/python" ] && [ "$stamp" = "$(cat "$directory/stamp" 2>/dev/null)" ]; then
      return 0
    fi
  done
  stamp=$("$python" -c 'import sys; print(sys.version)'; cat pyproject.toml; printf '%s' "$extras")
  say "preparing $directory with $("$python" -V)"
  log=$(mktemp)
  if ! "$python" -m venv --clear "$directory" >"$log" 2>&1; then
    prepare_packages no-such-program:python3-venv || { rm -f "$log"; return 1; }
    "$python" -m venv --clear "$directory"
  fi
  if ! "$directory/bin/python" -m pip install -q -e ".${extras:+[$extras]}" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
  printf '%s\n' "$stamp" >"$directory/stamp"
}
