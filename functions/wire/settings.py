"""What the wire takes from the environment; read once, when the first part of it is imported."""

import os

NATIVE = os.environ.get("TURNOUT_NATIVE", "1") != "0"
"""TURNOUT_NATIVE=0 keeps to pure Python although compiled twins are there."""
