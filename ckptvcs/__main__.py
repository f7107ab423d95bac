"""`python -m ckptvcs`."""

from ckptvcs.cli.main import main

main()
