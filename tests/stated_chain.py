"""Chains that state values, as answers that are learned whole: of a map of 3 × 3 codes, in a frame of 56 pixels."""

import torch

CODES = [3, 1, 4, 1, 5, 9, 2, 6, 5]  # row by row
PLACES = {"A": (0, 0), "B": (55, 20), "C": (30, 55)}
CELLS = {"A": 0, "B": 5, "C": 7}


def span(codes=CODES):
    return "<DEPTH_START>" + "".join(f"<DEPTH_{code}>" for code in codes) + "<DEPTH_END>"


def chain(places=PLACES, *, codes=CODES, chosen="C"):
    return f"The depth map is {span(codes)}. {end_of_chain(places, chosen=chosen)}"


def marked_chain(places=PLACES, *, codes=CODES, chosen="C"):
    """A chain that names its points before the map too."""
    named = ", ".join(f"{letter} (<PIXEL_{x}>,<PIXEL_{y}>)" for letter, (x, y) in places.items())
    return f"The marked points are {named}. {chain(places, codes=codes, chosen=chosen)}"


def end_of_chain(places=PLACES, *, chosen="C"):
    """Values are 07, 17, 27 …"""
    points = ", ".join(
        f"{letter} (<PIXEL_{x}>,<PIXEL_{y}>) {number}7" for number, (letter, (x, y)) in enumerate(places.items())
    )
    return f"The points are {points}. The value is highest at {chosen}, so it is closest. The answer is ({chosen})."


def labels_of(tokenizer, *texts):
    """int64 (B, T), padded on the right with -100."""
    rows = [tokenizer(text).input_ids for text in texts]
    longest = max(map(len, rows))
    return torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
