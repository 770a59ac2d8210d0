#!/usr/bin/env bash
# The image that the tests of containers are built from: Debian with Python and pip.  Prints its name.
#   base_image.sh [FOLDER]    FOLDER keeps it for engines that come and go
set -euo pipefail
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/runproj-tests}
recipe=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-12)
image=runproj-test-base:$recipe
mkdir -p "$folder"
exec 9>"$folder/base-image.lock"
flock 9 # whoever comes second waits, and finds it
if ! docker image inspect "$image" >/dev/null 2>&1; then
    file=$folder/base-image-$recipe.tar
    if [ ! -e "$file" ]; then
        mmdebstrap --quiet --format=tar --variant=essential --include=python3,python3-pip,git,libstdc++6,ca-certificates \
            --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
            --dpkgopt='path-exclude=/usr/share/locale/*' \
            --customize-hook='ln -s python3 "$1/usr/bin/python"' \
            --customize-hook='cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"' \
            bookworm "$file.part" >&2 # the certificates that this machine trusts, so that pip gets through there too
        mv "$file.part" "$file"
    fi
    docker import -c 'ENV PIP_BREAK_SYSTEM_PACKAGES=1 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
        -c 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' "$file" "$image" >/dev/null
fi
echo "$image"
