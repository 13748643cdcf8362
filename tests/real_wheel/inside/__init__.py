"""Scripts that run inside the throwaway environment. Each prints what it found as one line of JSON, last."""
