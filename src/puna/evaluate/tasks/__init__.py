"""Tasks, one file each: add one here, with its `TASKS`."""
