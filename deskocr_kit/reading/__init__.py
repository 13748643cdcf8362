"""Files in, text out: checkpoints, pages, the Reader, many pages, one record per page."""
