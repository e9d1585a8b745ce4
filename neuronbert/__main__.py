"""``python -m neuronbert``: the command line."""

from neuronbert.cli.main import main

if __name__ == "__main__":
    main()
