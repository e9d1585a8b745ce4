"""Signs an artifact with a key of ssh-keygen's; ``signatures`` says what a signature is, and verifies it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict

from neuronbert.artifact.files import output_errors, remove_leftovers, replace_file
from neuronbert.artifact.manifest import MANIFEST_NAME, PathLike, parse_manifest, read_manifest_bytes, verified
from neuronbert.artifact.signatures import (
    KEY_TYPE,
    MAKE_KEY,
    NAMESPACE,
    SIGNATURE_NAME,
    PublicKey,
    Signature,
    read_key_file,
    signed_bytes,
    verify_signature,
)
from neuronbert.errors import UsageError, quoted
from neuronbert.hardware.libraries import optional_imports

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True)
class Signed:
    """What was signed, and by whom."""

    artifact: str
    signature: str  # its file
    fingerprint: str
    public_key: str  # as --trusted-key takes it in a file

    def as_dict(self) -> Dict[str, Any]:
        """As plain JSON data."""
        return vars(self).copy()


def sign_artifact(artifact: PathLike, key: PathLike) -> Signed:
    """Sign the artifact in the folder ``artifact`` with the private key in the file ``key``, once it is verified whole.

    A signature that is there already is replaced; after an error it is as it was. Raises UsageError for a key that
    cannot be used, ArtifactError for an artifact that is damaged, OutputError where nothing can be written, and
    MissingLibrary without cryptography.
    """
    folder = Path(artifact)
    private = _private_key(Path(key), folder)
    path = folder / SIGNATURE_NAME
    remove_leftovers(path)
    raw = read_manifest_bytes(folder)
    verified(folder, parse_manifest(folder, raw))
    public = PublicKey(private.public_key().public_bytes_raw())
    with output_errors(path):
        replace_file(path, Signature(public, private.sign(signed_bytes(raw))).armored())
    verify_signature(folder, raw, [public])
    return Signed(str(folder), str(path), public.fingerprint, str(public))


def _private_key(path: Path, folder: Path) -> "Ed25519PrivateKey":
    with optional_imports("sign"):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    raw = read_key_file(path)
    try:
        key = load_ssh_private_key(raw, password=None)
    except TypeError:
        command = f"ssh-keygen -Y sign -n {NAMESPACE} -f {quoted(path)} {quoted(folder / MANIFEST_NAME)}"
        raise UsageError(f"{path} is protected by a passphrase", hint=f"{command}, which asks for it") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        what = "is a public key, and signing needs the private one" if raw.startswith(b"ssh-") else "is no private key"
        raise UsageError(
            f"{path} {what} of ssh-keygen's ({error})", hint=f"a key of type {KEY_TYPE}; {MAKE_KEY}"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} is a key of another type than {KEY_TYPE}", hint=MAKE_KEY)
    return key
