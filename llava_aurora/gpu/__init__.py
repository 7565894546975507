"""Checks of a GPU (`llava-aurora doctor --gpu`), and the layers of a published size that they are made on."""
