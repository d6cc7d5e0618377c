"""`python -m pgti_bench`."""

from pgti_bench.app import main

if __name__ == "__main__":
    main()
