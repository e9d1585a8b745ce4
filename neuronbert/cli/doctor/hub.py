"""Whether the hub can be reached from here: asked once, over the same proxies as everything else, and not for long."""

import threading
from typing import List, Mapping, Optional
from urllib.error import HTTPError
from urllib.request import Request, urlopen

TIMEOUT_S = 3.0
ENDPOINT_VARIABLE, ENDPOINT = "HF_ENDPOINT", "https://huggingface.co"
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def offline_by(environ: Mapping[str, str]) -> Optional[str]:
    """The variable that keeps huggingface_hub from the network, if one does, as that reads it."""
    on = ("1", "ON", "YES", "TRUE")
    return next((name for name in OFFLINE_VARIABLES if environ.get(name, "").strip().upper() in on), None)


def endpoint(environ: Mapping[str, str]) -> str:
    """The hub's address, by its documented variable."""
    return environ.get(ENDPOINT_VARIABLE) or ENDPOINT


def why_unreachable(address: str, timeout_s: float = TIMEOUT_S) -> Optional[str]:
    """Why the server at ``address`` does not answer within ``timeout_s``; None if it does, whatever it says."""
    faults: List[Optional[str]] = []
    # In a thread: looking up a name keeps to no time limit of ours.
    thread = threading.Thread(target=lambda: faults.append(_ask(address, timeout_s)), daemon=True)
    thread.start()
    thread.join(timeout_s)
    return faults[0] if faults else f"no answer within {timeout_s:g} s"


def _ask(address: str, timeout_s: float) -> Optional[str]:
    try:
        with urlopen(Request(address, method="HEAD"), timeout=timeout_s):
            return None
    except HTTPError:
        return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
