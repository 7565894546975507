"""Plug-ins for evaluation harnesses that are installed beside this package and none of its dependencies."""
