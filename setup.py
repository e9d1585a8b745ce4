import re
from pathlib import Path

from setuptools import setup

README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")

# Beside an index's page there are no files: a link to one becomes plain text.
setup(long_description=re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", README))
