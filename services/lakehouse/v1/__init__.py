"""Generated from protos/ by make proto; imported by rpc only."""
