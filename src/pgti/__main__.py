"""`python -m pgti` is the same as `pgti`: the entry that torchrun uses."""

from pgti.cli.main import main

if __name__ == "__main__":
    main()
