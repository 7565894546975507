"""Tasks: one file is one family of things that a model is taught and asked. task.py holds the contract they share."""
