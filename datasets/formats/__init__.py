"""Readers of scene folders, one file per format; `lumigraph.datasets.load` picks the right one."""
