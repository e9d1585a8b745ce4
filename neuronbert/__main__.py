"""The command line, for ``python -m neuronbert`` and for the script ``neuronbert`` (setup.cfg)."""

import sys


def main() -> None:
    """Run cli/main.py, or say which library it cannot be imported without."""
    try:
        from neuronbert.cli.main import main

        main()
    except KeyboardInterrupt:  # during the imports, before the command line is there to say so
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except ImportError as error:
        from neuronbert.hardware.libraries import explained

        missing = explained(error)
        if missing is None:
            raise
        sys.exit(f"error: {missing}")


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # -m put the working directory there, where a json.py among a user's data would be imported
    main()
