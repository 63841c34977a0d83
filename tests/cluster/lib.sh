# What setup, preflight and images share: where things are cached, which versions, how a step is shown.
# Sourced by bash; expects `set -euo pipefail`. The versions are those that the go.mod files pin, written nowhere else.

cluster_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${MAILROUTE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mailroute}

# pinned MODULE DIR: the version (without its v) that DIR/go.mod requires of MODULE.
pinned() {
    sed -nE "s|^(require)?[[:space:]]*$1 v([^ ]+).*|\2|p" "$cluster_dir/$2/go.mod" | head -n 1
}

# The folder of the version of Kubernetes that MAILROUTE_KUBERNETES names by its minor version; empty: the newest.
kubernetes=kubernetes
newest_kubernetes=$(pinned k8s.io/kubernetes kubernetes)
case $newest_kubernetes in
"${MAILROUTE_KUBERNETES:-$newest_kubernetes}" | "${MAILROUTE_KUBERNETES:-}".*) ;;
*) kubernetes=kubernetes-$MAILROUTE_KUBERNETES ;;
esac
if [ ! -d "$cluster_dir/$kubernetes" ]; then
    echo "error: the tests do not know Kubernetes $MAILROUTE_KUBERNETES" >&2
    echo "  remedy: choose one of:$(cd "$cluster_dir" && sed -nE 's/.*k8s.io\/kubernetes v([0-9]+\.[0-9]+)\..*/ \1/p' kubernetes*/go.mod | tr -d '\n')" >&2
    exit 1
fi
kubernetes_version=$(pinned k8s.io/kubernetes "$kubernetes")
coredns_version=$(pinned github.com/coredns/coredns coredns)
helm_version=$(pinned helm.sh/helm/v4 helm)
helm3_version=$(pinned helm.sh/helm/v3 helm3)
cosign_version=$(pinned github.com/sigstore/cosign/v3 cosign)
kstatus_version=$(pinned sigs.k8s.io/cli-utils kstatus)
monitoring_version=$(pinned github.com/prometheus-operator/prometheus-operator monitoring)
# The version and checksum of the headless Chromium.
. "$cluster_dir/chromium/pin"
nextest_version=0.9.151
cargo_fuzz_version=0.13.2
mdbook_version=0.5.4
# The npm package dejavu-fonts-ttf, and the SHA-512 of its archive.
dejavu_version=2.37.3
dejavu_sha512=7f585dee325b7906b5556730f8ad8aad35d2e74cd331a1e9542e1720a26935c0de611e5a8ccb63fe22e540360dbcb38a6a6501dc04555427fbf65370355ced49
# The project's own, which its images carry as their tag.
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$cluster_dir/../../Cargo.toml")

say() { printf '%s\n' "$*" >&2; }

# fail WHAT REMEDY: every way out that is not success names both.
fail() {
    say "error: $1"
    say "  remedy: $2"
    exit 1
}

# checksum PATH...: one sum over the content of the files, so that a cached result can name what it was made from.
checksum() { cat "$@" | sha256sum | cut -c 1-64; }

# step NUMBER COUNT TEXT COMMAND...: runs COMMAND and says before what it does and after how long it took. Its output is
# kept aside and shown only when it fails. The command has a shell of its own: what it sets up with an EXIT trap is undone
# when it ends, also by Ctrl-C.
step() {
    local number=$1 count=$2 text=$3 started=$SECONDS log status=0
    shift 3
    say "[$number/$count] $text …"
    log=$(mktemp)
    # Not `if "$@"`: that would switch off `set -e` inside the command.
    set +e
    (
        set -e
        trap 'exit 130' INT
        trap 'exit 143' TERM
        "$@"
    ) >"$log" 2>&1
    status=$?
    set -e
    case $status in 130 | 143)
        rm -f "$log"
        exit "$status"
        ;;
    esac
    if [ "$status" -ne 0 ]; then
        tail -n 25 "$log" >&2
        rm -f "$log"
        fail "$text: failed with status $status after $((SECONDS - started)) s" \
            "${remedy:-the lines above are its last output; put it right and run the same command again}"
    fi
    rm -f "$log"
    say "[$number/$count] done in $((SECONDS - started)) s"
}
