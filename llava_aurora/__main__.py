"""`python -m llava_aurora` is `llava-aurora`."""

from llava_aurora.cli.__main__ import main

if __name__ == "__main__":
    main()
