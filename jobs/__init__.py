"""Recipes for a cluster: one file, one job."""
