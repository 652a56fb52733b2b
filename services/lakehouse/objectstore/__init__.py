"""The door to object stores: a port, its adapters and wrappers, and the conformance probe.

obstore and boto3 are imported below this package only.
"""
