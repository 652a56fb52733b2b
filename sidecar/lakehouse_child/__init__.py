"""A small HTTP server that is somebody's child, and never outlives its parent.

It listens on loopback, tells its port in one line on standard output once it answers, and ends when
its standard input does: so it ends with a parent that was killed, too. With ``--standalone`` it is
nobody's child and ends by a signal.
"""
