"""``python -m framecast`` runs the command ``framecast``."""

from framecast.cli import main

main()
