"""`python -m tlens_trust.cli` does as `tlens-trust` does."""

from tlens_trust.cli import main

if __name__ == "__main__":
    main()
