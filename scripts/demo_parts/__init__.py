"""What scripts/demo.py is made of: who talks (narrator), where (stage, wire), and the chapters."""
