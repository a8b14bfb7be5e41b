"""``python -m hwr.train -m ...``: many trainings that end in one answer, by Optuna, with everything on disk."""
