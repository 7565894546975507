"""Models for the harnesses lmms-eval and VLMEvalKit, which are installed beside this package."""
