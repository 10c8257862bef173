"""Model and transformer servers: the code between a listening socket and a user's model.

Importing this package loads nothing: the router's image carries only this file and `wire/`.
"""
