"""A small HTTP server that is somebody's child, and never outlives its parent.

It listens on loopback, tells on standard output where, and ends when its standard input does: so it
ends with a parent that was killed, too. With ``--standalone`` it is nobody's child and ends by a
signal.
"""
