"""A run, on one page that can be sent by mail.

    run folder ─▶ load_report_data() ─▶ ReportData ─▶ render_page() ─▶ report.html

The page carries its style, drawings and pictures in itself: it needs no network, no script and
no second file. Making it is pure: the same records give the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from roclip_sanitize.report.gallery import collect_gallery
from roclip_sanitize.report.loading import load_report_data, write_gallery
from roclip_sanitize.report.page import render_page
from roclip_sanitize.runfiles import write_bytes

__all__ = ["collect_gallery", "load_report_data", "render_page", "write_gallery", "write_report"]


def write_report(run: Path, *, out: Path | None = None) -> Path:
    """Make the page of a run.

    Args:
        run: folder with ``results.json``; ``curves.json``, ``manifest.json`` and ``gallery.json`` are
            used where they exist.
        out: where to write the page; ``report.html`` in the run folder by default.

    Returns:
        Where the page lies.

    Raises:
        DataError: the folder has no results, or one of its files is not what it should be.
    """
    path = out or run / "report.html"
    write_bytes(path, render_page(load_report_data(run)).encode("utf-8", "replace"))
    return path
