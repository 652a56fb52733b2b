"""The command line. Commands compute and hand records to Output."""
