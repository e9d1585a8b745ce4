"""Fetches one revision of a hub checkpoint for loading.py: config, tokenizer and weights from the same commit."""

import logging
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

from neuronbert.checkpoint import weights
from neuronbert.checkpoint.tokenizer_files import FILE_NAMES
from neuronbert.errors import CheckpointError, NeuronBertError, OutputError
from neuronbert.hardware.libraries import optional_imports

log = logging.getLogger(__name__)

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"{_PART}(?:/{_PART})?")


def looks_like_hub_id(name: str) -> bool:
    """Whether ``name`` has the form ``name`` or ``owner/name`` that the hub uses."""
    return len(name) <= 96 and bool(_HUB_ID.fullmatch(name)) and "--" not in name and ".." not in name


@optional_imports()
def download(
    repo_id: str,
    revision: Optional[str],
    token: Optional[str],
    local_files_only: bool,
    allow_pickle: bool,
    more_files: Sequence[str] = (),
    encoder: Callable[[Path], Path] = lambda folder: folder,
) -> Tuple[Path, str]:
    """Folder of the downloaded snapshot and the commit it is at; only the files a checkpoint needs are fetched.

    ``more_files`` are patterns of files that it may have beside config, tokenizer and weights. Those may say that these
    three are in a folder below, which ``encoder`` finds: (folder of the snapshot) → the folder they are in.

    With ``local_files_only`` (or HF_HUB_OFFLINE) only the cache is read; without a network it is too, and a warning
    says so. Raises CheckpointError.
    """
    from huggingface_hub import constants

    if local_files_only or constants.HF_HUB_OFFLINE:
        return _from_cache(repo_id, revision, None)
    try:
        return _fetch(repo_id, revision, token, allow_pickle, more_files, encoder)
    except NeuronBertError:
        raise
    except Exception as error:  # of requests or of httpx, by the release of huggingface_hub
        refusal = _explain(error, repo_id, revision)
        if refusal is not None:
            raise refusal from error
        if _is_network_failure(error):
            folder, commit = _from_cache(repo_id, revision, error)
            # Unless the caller's code handles it, a warning is one line on stderr.
            log.warning(
                "the hub cannot be reached (%s): %s at %s is from the cache", _root_cause(error), repo_id, commit
            )
            return folder, commit
        if isinstance(error, OSError) and error.strerror:
            raise OutputError(
                f"{repo_id} cannot be kept in the hub's cache: {error.strerror} ({error.filename or 'HF_HOME'})",
                hint="free some space, or set HF_HOME to a folder that can be written to",
            ) from error
        raise


@optional_imports()
def _fetch(
    repo_id: str,
    revision: Optional[str],
    token: Optional[str],
    allow_pickle: bool,
    more_files: Sequence[str],
    encoder: Callable[[Path], Path],
) -> Tuple[Path, str]:
    from huggingface_hub import HfApi, snapshot_download

    info = HfApi().model_info(repo_id, revision=revision, token=token)
    names = [sibling.rfilename for sibling in info.siblings or []]
    needless = _needless_pickles(names)

    def fetched(wanted: List[str]) -> Path:
        # Asked for by its branch, so that the cache remembers it; all files come from the commit it resolves to.
        return Path(
            snapshot_download(
                repo_id, revision=revision, token=token, allow_patterns=wanted, ignore_patterns=needless or None
            )
        )

    place = ""
    if any(fnmatch(name, pattern) for name in names for pattern in more_files):
        first = fetched(["config.json", *more_files])
        below = encoder(first).relative_to(first).as_posix()
        place = "" if below == "." else f"{below}/"
    there = [name[len(place) :] for name in names if name.startswith(place)]
    wanted = ["config.json", *FILE_NAMES, *_weight_patterns(repo_id, there, allow_pickle), *more_files]
    folder = fetched([*more_files, *(place + pattern for pattern in wanted)])
    return folder, folder.name


def _needless_pickles(names: List[str]) -> List[str]:
    """Pickles beside the same weights as safetensors."""
    pickle = f"/{weights.PICKLE_FILES[0]}"
    folders = [name[: -len(pickle)] for name in names if name.endswith(pickle)]
    return [folder + pickle for folder in folders if f"{folder}/{weights.SINGLE_FILE}" in names]


def _weight_patterns(repo_id: str, names: List[str], allow_pickle: bool) -> List[str]:
    if weights.SINGLE_FILE in names:
        return [weights.SINGLE_FILE]
    if weights.INDEX_FILE in names:
        return [weights.INDEX_FILE, "model-*.safetensors"]
    if any(name in names for name in weights.PICKLE_FILES):
        if allow_pickle:
            return [*weights.PICKLE_FILES, "pytorch_model-*.bin"]
        raise CheckpointError(
            f"{repo_id} has its weights in {weights.PICKLE_FILES[0]} only, a pickle, which can run code when read",
            hint="--allow-pickle if you trust it, or a --revision that has model.safetensors (often refs/pr/1)",
        )
    return []  # reading the folder says what is missing


@optional_imports()
def _from_cache(repo_id: str, revision: Optional[str], failure: Optional[Exception]) -> Tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import LocalEntryNotFoundError

    at = f" at revision {revision}" if revision else ""
    try:
        # Newer releases refuse a snapshot that lacks a file of these patterns; reading the folder checks the others.
        patterns = ["config.json"]
        folder = Path(snapshot_download(repo_id, revision=revision, local_files_only=True, allow_patterns=patterns))
    except LocalEntryNotFoundError as error:
        if failure is None:
            raise CheckpointError(
                f"{repo_id}{at} is neither a folder here nor in the local hub cache, and downloading is off",
                hint="run once without --local-files-only (and HF_HUB_OFFLINE), or pass the path of a folder",
            ) from error
        raise CheckpointError(
            f"{repo_id} is not a folder here, and the hub cannot be reached to fetch it ({_root_cause(failure)})",
            hint='check the network or HF_ENDPOINT, pass the path of a folder, or "demo" for ours',
        ) from failure
    return folder, folder.name


@optional_imports()
def _explain(error: Exception, repo_id: str, revision: Optional[str]) -> Optional[CheckpointError]:
    """A CheckpointError for what the hub refuses; None for an error that is no refusal."""
    from huggingface_hub import utils

    if type(error).__name__ == "GatedRepoError":  # newer than the oldest huggingface_hub supported
        return CheckpointError(
            f"{repo_id} is gated: its owner asks for an agreement first",
            hint=f"accept it at https://huggingface.co/{repo_id}, then set HF_TOKEN or pass --token",
        )
    if isinstance(error, utils.RevisionNotFoundError):
        return CheckpointError(
            f"{repo_id} has no revision {revision!r}", hint="a branch, tag or commit of that repository"
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, utils.RepositoryNotFoundError) or status in (401, 403, 404):
        return CheckpointError(
            f"{repo_id} is neither a folder here nor a checkpoint the hub shows us (HTTP {status})",
            hint="check the spelling; for a private one set HF_TOKEN or pass --token",
        )
    if status is not None:
        return CheckpointError(f"the hub refused {repo_id} with HTTP {status}", hint="try again later")
    return None


# ConnectionError and Timeout of requests, TransportError of httpx, and the errors huggingface_hub turns them into.
_NETWORK_ERRORS = {"ConnectionError", "Timeout", "TransportError", "LocalEntryNotFoundError", "OfflineModeIsEnabled"}


def _is_network_failure(error: Exception) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & _NETWORK_ERRORS)


def _root_cause(error: BaseException) -> str:
    """The innermost reason, such as "Connection refused"; the outer ones repeat it with addresses of objects."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error).strip() or type(error).__name__
