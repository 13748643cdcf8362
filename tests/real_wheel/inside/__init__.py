"""Scripts that run in the temporary environment. Each prints its result as one line of JSON at the end."""
