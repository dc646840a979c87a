"""Random walks through the protocol: tests/test_script_model.py runs them."""
