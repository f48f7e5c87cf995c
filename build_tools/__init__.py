"""What setup.py needs to find on the machine before it can build."""
