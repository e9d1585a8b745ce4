"""Signatures of artifacts: of the manifest's bytes, which vouch for every file, checked before any of them is parsed.

They are those of ``ssh-keygen -Y sign`` (OpenSSH's PROTOCOL.sshsig) with Ed25519 keys: everybody has such keys, an
agent may hold them, and ``ssh-keygen -Y verify`` needs no neuronbert. ``signing`` makes them. As key type, namespace
and hash are fixed, so is the length of every field, and nothing needs to be parsed.
"""

import base64
import binascii
import hashlib
import os
import struct
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.errors import SignatureError, UsageError, is_path, quoted, shown_value
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.untrusted import MEBIBYTE, Refusal, read_file

SIGNATURE_NAME = "neuronbert.json.sig"
TRUSTED_KEY_VARIABLE = "NEURONBERT_TRUSTED_KEY"
# What is signed begins with it: no signature made for anything else is one of an artifact.
NAMESPACE = "neuronbert-artifact"

KEY_TYPE = "ssh-ed25519"
PUBLIC_BYTES, SIGNATURE_BYTES = 32, 64
MAGIC, VERSION, HASH = b"SSHSIG", 1, "sha512"
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
SIGNATURE_FILE_BYTES = 4096  # at most; one has about 300
MAKE_KEY = "ssh-keygen -t ed25519 makes one"

PathLike = Union[str, "os.PathLike[str]"]
TrustedKey = Union[PathLike, Sequence[PathLike], None]


class PublicKey(NamedTuple):
    """An Ed25519 key, its 32 bytes."""

    raw: bytes

    @classmethod
    def of_line(cls, line: str) -> Optional["PublicKey"]:
        """The key of a line in a .pub file: the type, the key in base64, and a comment; None for anything else."""
        words = line.split()
        try:
            blob = base64.b64decode(words[1], validate=True) if words[:1] == [KEY_TYPE] and words[1:] else b""
        except ValueError:
            return None
        key = cls(blob[-PUBLIC_BYTES:])
        return key if blob == key.blob else None

    @property
    def blob(self) -> bytes:
        """As OpenSSH writes a public key."""
        return _field(KEY_TYPE) + _field(self.raw)

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -l`` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{KEY_TYPE} {base64.b64encode(self.blob).decode()}"


class Signature(NamedTuple):
    """A signature, and the key that it says it is by."""

    key: PublicKey
    raw: bytes

    @property
    def frame(self) -> bytes:
        """As OpenSSH writes a signature."""
        signature = _field(_field(KEY_TYPE) + _field(self.raw))
        return MAGIC + struct.pack(">I", VERSION) + _field(self.key.blob) + _context() + signature

    def armored(self) -> str:
        """The text of its file."""
        text = base64.b64encode(self.frame).decode()
        return "\n".join([BEGIN, *(text[at : at + 70] for at in range(0, len(text), 70)), END, ""])

    @classmethod
    def of_text(cls, text: str) -> Optional["Signature"]:
        """The signature in the text of a file; None for anything else, other keys and namespaces included."""
        lines = text.split()
        head, tail = BEGIN.split(), END.split()
        if lines[: len(head)] != head or lines[-len(tail) :] != tail:
            return None
        try:
            frame = base64.b64decode("".join(lines[len(head) : -len(tail)]), validate=True)
        except (ValueError, binascii.Error):
            return None
        at = len(MAGIC) + 4 + 4 + len(_field(KEY_TYPE)) + 4
        found = cls(PublicKey(frame[at : at + PUBLIC_BYTES]), frame[-SIGNATURE_BYTES:])
        return found if found.frame == frame else None


def _field(data: Union[str, bytes]) -> bytes:
    raw = data.encode() if isinstance(data, str) else data
    return struct.pack(">I", len(raw)) + raw


def _context() -> bytes:
    return _field(NAMESPACE) + _field("") + _field(HASH)


def signed_bytes(manifest: bytes) -> bytes:
    """What is signed for the bytes of a manifest."""
    return MAGIC + _context() + _field(hashlib.sha512(manifest).digest())


# ---------------------------------------------------------------------- which keys are trusted


def trusted_keys(files: TrustedKey = None) -> Tuple[PublicKey, ...]:
    """The keys in ``files`` of public keys, as ssh-keygen writes them to .pub, any number of lines each.

    None: those of the file that $NEURONBERT_TRUSTED_KEY names, if it is set; else none, and no signature is demanded.
    Raises UsageError for no file, and for one that cannot be read, holds no key, or anything but Ed25519 keys.
    """
    if files is None:
        files = os.environ.get(TRUSTED_KEY_VARIABLE)
        if files is None:
            return ()
        if not files:  # of a variable that was not set where this one was
            raise UsageError(
                f"{TRUSTED_KEY_VARIABLE} is empty", hint=f"the path of a file of keys, or unset {TRUSTED_KEY_VARIABLE}"
            )
    if isinstance(files, (str, os.PathLike)):
        files = [files]
    if not isinstance(files, (list, tuple)) or not all(map(is_path, files)):
        value = shown_value(files)
        raise UsageError(f"trusted_key must be a file of public keys, or several, not {value}", hint=MAKE_KEY)
    if not files:  # a list that came out empty must not mean that anything goes
        raise UsageError("no file of trusted keys is given", hint="trusted_key='FILE.pub', or leave it out")
    return tuple(dict.fromkeys(key for file in files for key in _keys_in(Path(file))))


def _keys_in(path: Path) -> List[PublicKey]:
    text = read_key_file(path).decode("utf-8", "replace")
    if "PRIVATE KEY-----" in text:
        raise UsageError(
            f"{path} is a private key, and a trusted key is a public one", hint=f"--trusted-key {quoted(path)}.pub"
        )
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            key = PublicKey.of_line(line)
            if key is None:
                raise UsageError(
                    f"{path}, line {number}: {line.strip()[:40]!r} is no public key of type {KEY_TYPE}",
                    hint=f"the .pub file of such a key; {MAKE_KEY}",
                )
            keys.append(key)
    if not keys:
        raise UsageError(f"{path} holds no public key", hint=f"the .pub file of a key; {MAKE_KEY}")
    return keys


def read_key_file(path: Path) -> bytes:
    """The bytes of a file of keys; UsageError if it cannot be read."""
    try:
        return read_file(path, Refusal(UsageError, f"a file of ssh-keygen's; {MAKE_KEY}"), MEBIBYTE)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"there is no file of keys {path}", hint=f"check the path; {MAKE_KEY}") from None


# ---------------------------------------------------------------------- verifying


def verify_signature(folder: Path, manifest: bytes, keys: Sequence[PublicKey]) -> PublicKey:
    """The one of ``keys`` that signed ``manifest``, the bytes of the artifact in ``folder``.

    Raises SignatureError where there is no signature, where it is by another key or of other bytes; MissingLibrary
    without cryptography.
    """
    signature = read_signature(folder)
    if signature is None:
        raise SignatureError(
            f"{folder} is not signed, and a trusted key was demanded",
            hint=f"whoever made it signs it: neuronbert sign {quoted(folder)} --key FILE",
        )
    if signature.key not in keys:
        trusted = ", ".join(key.fingerprint for key in keys)
        raise SignatureError(
            f"{folder} is signed by {signature.key.fingerprint}, which is not trusted (trusted: {trusted})",
            hint="do not load it, or have it signed by a trusted key",
        )
    with optional_imports("sign"):
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    try:
        Ed25519PublicKey.from_public_bytes(signature.key.raw).verify(signature.raw, signed_bytes(manifest))
    except (InvalidSignature, ValueError):
        raise SignatureError(
            f"{folder}: the signature by {signature.key.fingerprint} is not of this manifest",
            hint="do not load it; copy the artifact again, or have it signed again",
        ) from None
    return signature.key


def signature_state(folder: Path, signed_by: Optional[PublicKey]) -> Dict[str, Optional[str]]:
    """What is known of the signature in ``folder``, for a person; ``signed_by`` is the key it was verified with."""
    if signed_by is not None:
        return {"state": "verified", "fingerprint": signed_by.fingerprint}
    try:
        signature = read_signature(folder)
    except SignatureError:
        return {"state": "damaged", "fingerprint": None}
    if signature is None:
        return {"state": "unsigned", "fingerprint": None}
    return {"state": "not verified", "fingerprint": signature.key.fingerprint}


def read_signature(folder: Path) -> Optional[Signature]:
    """The signature beside the manifest in ``folder``, not verified; None if there is none, SignatureError for junk."""
    path = folder / SIGNATURE_NAME
    refusal = Refusal(SignatureError, "have the artifact signed again")
    try:
        raw = read_file(path, refusal, SIGNATURE_FILE_BYTES, links=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    signature = Signature.of_text(raw.decode("ascii", "replace"))
    if signature is None:
        raise SignatureError(
            f"{path} is no signature by an Ed25519 key for {NAMESPACE}",
            hint=f"neuronbert sign {quoted(folder)} --key FILE, or ssh-keygen -Y sign -n {NAMESPACE}",
        )
    return signature
