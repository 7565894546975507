"""Models for evaluation harnesses that find or are told of them; each harness is installed beside this package."""
