"""The wire every unit speaks: bodies, headers, error envelopes and the container contract.

Standard library only, so that the router can use it without carrying the model server.
"""
