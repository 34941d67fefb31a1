"""``python -m framecast``: the same as the command ``framecast``."""

from framecast.cli import main

main()
