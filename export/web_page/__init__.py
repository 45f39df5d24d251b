"""A scene as one HTML file that works offline: Gaussians drawn by WebGL, or pictures of a volume
field on a grid of directions. The package is not named `page`: it would hide the function."""

from lumigraph.export.web_page.page_export import PageOptions, PageReport, page

__all__ = ["PageOptions", "PageReport", "page"]
