"""``python -m fastq``."""

from fastq.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
