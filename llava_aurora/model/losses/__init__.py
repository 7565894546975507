"""Auxiliary losses, one a file; auxiliary.py holds the contract they share."""

from llava_aurora.model.losses.auxiliary import AuxiliaryLoss, AuxWeight, LossContext, loss_class, parse_aux_losses

__all__ = ["AuxWeight", "AuxiliaryLoss", "LossContext", "loss_class", "parse_aux_losses"]
