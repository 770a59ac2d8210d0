#!/usr/bin/env bash
# kubernetes_build.sh FOLDER: puts the programs of a one-node Kubernetes into FOLDER/kubernetes-HASH and prints its name.
# They are built from Debian's source package, which has all of its Go modules in it; eight minutes of CPU, once.
# Version 1.20 is the newest that runs containers with Docker by itself.
set -euo pipefail
script=$(readlink -f "${BASH_SOURCE[0]}")
mkdir -p "$1"
target=$(cd "$1" && pwd)/kubernetes-$(sha256sum "$script" | cut -c1-12)
programs=(kube-apiserver kube-controller-manager kube-scheduler kubelet)
exec 9>"$target.lock"
flock 9
if [ -e "$target/complete" ]; then
    echo "$target"
    exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
log=$scratch/log
failed() {
    tail -n 30 "$log" >&2
    exit 1
}
trap failed ERR

install() { # Debian packages, also while somebody else installs others
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -qq -y --no-install-recommends "$@" >>"$log" 2>&1
}
install golang-go dpkg-dev rsync jq make gcc libc6-dev

# the archive that this machine's apt uses, asked for sources too, in folders of our own
archive=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -n 1)
mkdir -p "$scratch"/{lists/partial,archives/partial,home}
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive bookworm main" >"$scratch/sources.list"
own=(-o "Dir::Etc::sourcelist=$scratch/sources.list" -o Dir::Etc::sourceparts=/dev/null)
own+=(-o "Dir::State::lists=$scratch/lists" -o "Dir::Cache=$scratch")
cd "$scratch"
apt-get "${own[@]}" -qq update >>"$log" 2>&1
apt-get "${own[@]}" -qq source --download-only kubernetes/bookworm >>"$log" 2>&1
dpkg-source -x --no-check kubernetes_*.dsc tree >>"$log" 2>&1

cd tree
# reflect2 as it was then crashes at random with this Go; Debian's own package of it does not
(cd "$scratch" && apt-get -qq download golang-github-modern-go-reflect2-dev && dpkg-deb -x golang-github-modern-go-reflect2-dev_*.deb reflect2) >>"$log" 2>&1
rm -f vendor/github.com/modern-go/reflect2/*.{go,s}
cp "$scratch"/reflect2/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} vendor/github.com/modern-go/reflect2/
# where root may not lower the score that the kernel kills by, kubelet must not ask for it
sed -i 's/\(defaultSandboxOOMAdj int = \)-998/\10/' pkg/kubelet/dockershim/docker_sandbox.go
sed -i 's/\(KubeletOOMScoreAdj int = \|KubeProxyOOMScoreAdj  int = \)-999/\10/; s/return guaranteedOOMScoreAdj$/return 0/' pkg/kubelet/qos/policy.go
mkdir -p .gopath/src/k8s.io
ln -sfn ../../.. .gopath/src/k8s.io/kubernetes
export HOME="$scratch/home" GOPATH="$PWD/.gopath" GOCACHE="$scratch/go" GOPROXY=off GOFLAGS=-tags=providerless GOGC=300 CGO_ENABLED=0
export KUBE_GIT_VERSION=v1.20.2 KUBE_GIT_COMMIT=debian KUBE_GIT_TREE_STATE=clean
export GOGCFLAGS='k8s.io/...=-l -dwarf=false' # a sixth less to do, for programs that do little
# of all generated files this is the only one that the archive lacks; Kubernetes' own make would make every one again
make -f Makefile.generated_files pkg/generated/openapi/zz_generated.openapi.go CALLED_FROM_MAIN_MAKEFILE=1 \
    OUT_DIR=_output BIN_DIR=_output/bin META_DIR=.make PRJ_SRC_PATH=k8s.io/kubernetes \
    GENERATED_FILE_PREFIX=zz_generated. KUBE_VERBOSE=0 >>"$log" 2>&1
hack/make-rules/build.sh "${programs[@]/#/cmd/}" >>"$log" 2>&1

rm -rf "$target"
mkdir "$target"
for name in "${programs[@]}"; do cp -L "_output/bin/$name" "$target/"; done
gcc -Os -static -DVERSION=3.2 -o "$target/pause" build/pause/linux/pause.c >>"$log" 2>&1
touch "$target/complete"
echo "$target"
