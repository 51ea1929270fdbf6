"""A backend for scenarios, as a program of its own: `run.sh` and `backend.py`, packed by `playable_image`."""
