"""`python -m roclip_sanitize.cli`: the same as `roclip`, where only the package's folder is at hand."""

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run()
