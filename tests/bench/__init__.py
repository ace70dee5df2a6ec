"""How fast is this pool beside what a user would pick instead? ``python -m tests.bench``.

The machine that runs this is never quiet, so absolute times mean little here. All contestants take turns in many short
slices, and each is compared with the floor (``floor.py``) of the same turns.
"""
