"""Ed25519 keys as ssh and openssl write them; through `cryptography`, which the extra `capsule` installs."""

from __future__ import annotations

import base64
import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from runproj.core.values import dataclass
from runproj.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


@dataclass(frozen=True)
class PublicKey:
    """Checks signatures.  `line` is as in `~/.ssh/id_ed25519.pub`, without the comment."""

    line: str
    _key: Ed25519PublicKey

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        blob = base64.b64decode(self.line.split(" ")[1])
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")

    def verifies(self, signature: bytes, data: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    @staticmethod
    def read(text: bytes, name: str) -> PublicKey:
        """From ssh's line or PEM.  Raises `UsageError`."""
        serialization = _serialization()
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        load = serialization.load_pem_public_key if b"-----BEGIN" in text else serialization.load_ssh_public_key
        try:
            key = load(text)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UsageError(f"{name} is no public key", why=str(error), fix="Name a file like ~/.ssh/id_ed25519.pub.") from error
        if not isinstance(key, Ed25519PublicKey):
            raise _other_kind(name)
        form = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return PublicKey(form.decode(), key)


@dataclass(frozen=True)
class Key:
    """Signs."""

    public: PublicKey
    _key: Ed25519PrivateKey

    @property
    def fingerprint(self) -> str:
        return self.public.fingerprint

    def sign(self, data: bytes) -> bytes:
        return bytes(self._key.sign(data))

    @staticmethod
    def read(path: Path, passphrase: Callable[[], str]) -> Key:
        """From ssh's file or PEM; `passphrase` is asked where the key has one.  Raises `UsageError`."""
        serialization = _serialization()
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            text = path.read_bytes()
        except OSError as error:
            raise UsageError(f"The key {path} cannot be read", why=str(error.strerror)) from error
        load = serialization.load_ssh_private_key if b"OPENSSH" in text else serialization.load_pem_private_key
        try:
            try:
                key = load(text, password=None)
            except TypeError:  # it is encrypted
                key = load(text, password=passphrase().encode())
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            fix = "Name a file like ~/.ssh/id_ed25519; `ssh-keygen -t ed25519` makes one."
            raise UsageError(f"{path} is no private key that can be used", why=str(error), fix=fix) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise _other_kind(str(path))
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return Key(PublicKey.read(public, str(path)), key)


def _other_kind(name: str) -> UsageError:
    return UsageError(f"The key {name} is not of the kind ed25519", fix="`ssh-keygen -t ed25519` makes one.")


def _serialization() -> ModuleType:
    """The part of `cryptography` that reads keys.  Raises `UsageError` where it is not installed."""
    try:
        return importlib.import_module("cryptography.hazmat.primitives.serialization")
    except ImportError as error:
        raise UsageError(
            "Signatures need the package cryptography", why=str(error), fix="pip install 'runproj[capsule]'"
        ) from error
