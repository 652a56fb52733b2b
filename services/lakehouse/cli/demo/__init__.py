"""The demo's exports, as two systems of a staffing firm would write them."""
