"""Read files: checkpoints, pages, the Reader, batches of pages, one record per page."""
