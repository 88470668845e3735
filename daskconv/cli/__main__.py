"""``python -m daskconv.cli``: the same as the installed command."""

from daskconv.cli import main

if __name__ == "__main__":
    main()
