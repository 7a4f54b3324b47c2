"""IdentiFace: from a tiny blurred photo, a rough sketch and a few words to faces and calibrated candidates."""

__version__ = "0.1.0"
