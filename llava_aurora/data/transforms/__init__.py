"""Record transforms: one file changes records in one way while they are read. transform.py holds their contract."""
