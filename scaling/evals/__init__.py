"""What a model can do: tasks, prompts, scores (``python -m scaling.evals``).  Importing this loads no jax."""
