"""Trained models in the formats of other engines. hugging_face.py: transformers' own LLaVA."""
