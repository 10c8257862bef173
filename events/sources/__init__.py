"""Storage notifications of every producer, told apart by structure and turned into CloudEvents.

Pure functions: bytes in, events out. `normalise` is the whole interface.
"""

from .detect import Handshake, Notification, normalise

__all__ = ["Handshake", "Notification", "normalise"]
