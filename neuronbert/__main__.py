"""``python -m neuronbert``: the command line."""

import sys

if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # -m put the working directory there, where a json.py among a user's data would be imported
    from neuronbert.cli.main import main

    main()
