"""Reports a person looks at, from the files of a finished run."""
