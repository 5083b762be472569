"""The parts of scripts/demo.py: the narrator, the stage and the wire, and the chapters."""
