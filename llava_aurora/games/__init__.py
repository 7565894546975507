"""Playing a game by its frames: a scripted driver and its recordings as records (PAE-LaMM, arXiv 2408.03940)."""
